"""Methods of recover.py; a peer is run by `python recover_methods.py METHOD TASK KEPT FULL CUT OUT MINUTES SEED`.

Torch-Pruning cuts by L2 norm and the module is fine-tuned plainly: AdamW, a rate that falls along half a cosine, of
three rates the one that is best on every tenth batch after a tenth of the time. onnxsim cuts by L2 norm, solves each
MatMul and Gemm again (`apply_pruning_finetune_cpp`), and trains block by block against the full model in the time that
is left (`apply_block_finetune_all_blocks`).
"""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prune_methods import simplified
from recover_tasks import Recovery, recovery_of, without_end

OURS, LABELLED = "trtcompress", "trtcompress-labels"
"""Ours without labels, and with them where they are classes."""

PEERS = {"torch-pruning": "torch-pruning", "onnxsim": "onnxsim"}
RATES = (1e-2, 1e-3, 1e-4)
BATCH = 64


def commands(
    method: str,
    name: str,
    kept: float,
    full: Path,
    samples: Path,
    files: tuple[Path, Path, Path],
    minutes: float,
    seed: int = 0,
) -> list[list[str]]:
    """What to run, one behind the other, to write the bare cut (ours alone), the cut, and what was trained."""
    bare, cut, out = map(str, files)
    if method not in (OURS, LABELLED):
        return [[sys.executable, __file__, method, name, str(kept), str(full), cut, out, str(minutes), str(seed)]]
    program, data = str(Path(sys.executable).with_name("trtcompress")), ["--data", str(samples)]
    recovery = recovery_of(name)
    losses = [word for loss in recovery.losses for word in ("--loss", loss)]
    losses += ["--labels"] if method == LABELLED else []
    prune = [program, "prune", str(full), "--macs", str(kept), *recovery.cut, *data]
    recover = [program, "recover", cut, "--teacher", str(full), *data, *losses, "--minutes", str(minutes), "--restart"]
    recover += ["--seed", str(seed)]
    return [[*prune, "--no-reconstruct", "-o", bare], [*prune, "-o", cut], [*recover, "-o", out]]


def main(method: str, name: str, kept: str, full: str, cut: str, out: str, minutes: str, seed: str = "0") -> None:
    peers = {"torch-pruning": torch_pruning, "onnxsim": onnxsim}
    recovery = replace(recovery_of(name), minutes=float(minutes), seed=int(seed))
    peers[method](recovery, float(kept), Path(full), Path(cut), Path(out))


def torch_pruning(recovery: Recovery, kept: float, full: Path, cut: Path, out: Path) -> None:
    from torch_peer import cut_module, write_module

    module, example = cut_module(recovery.task, kept, recovery.task.calibration(0))
    write_module(recovery.task, module, example, cut)
    write_module(recovery.task, fine_tuned(module, recovery), example, out)


def fine_tuned(module: Any, recovery: Recovery) -> Any:
    """A few rates are tried in a third of the time, and the best goes on from there."""
    import torch

    seconds = recovery.minutes * 60
    tried = []
    for rate in RATES:
        student = copy.deepcopy(module)
        loss = trained(student, recovery, rate, seconds / 10)
        tried.append((loss if np.isfinite(loss) else np.inf, rate))
    _, rate = min(tried)
    trained(module, recovery, rate, seconds * (1 - len(RATES) / 10))
    return module.eval().to(memory_format=torch.contiguous_format)


def trained(module: Any, recovery: Recovery, rate: float, seconds: float) -> float:
    """Train in place for some seconds; the mean loss of the last part, on batches before they were learned from."""
    import torch

    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=1e-4)
    started, losses = time.monotonic(), []
    for batch in without_end(recovery.labelled, BATCH, recovery.seed):
        done = (time.monotonic() - started) / seconds
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = rate * (1 + np.cos(np.pi * done)) / 2
        optimizer.zero_grad()
        loss = recovery.loss(module, {key: torch.from_numpy(np.asarray(array)) for key, array in batch.items()})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, len(losses) // 4) :]))


def onnxsim(recovery: Recovery, kept: float, full: Path, cut: Path, out: Path) -> None:
    import onnx
    import onnxsim as peer

    from onnxsim_peer import onnxsim as cut_graph
    from trtcompress_engines.parsed_graphs import brought_down
    from trtcompress_graph.load import read_model

    held = list(recovery.samples())
    aside = cut.with_suffix(".aside.onnx")
    cut_graph(full, kept, held, aside, wanda=False)
    simplified(aside, cut)
    # its training writes opset 17 and takes nodes of a later one for such
    full, cut = (
        brought_down(read_model(path), 17, frozenset(), path.with_suffix(".17.onnx"))[0].path for path in (full, cut)
    )
    started, seconds = time.monotonic(), recovery.minutes * 60
    original, best = onnx.load(full), onnx.load(cut)
    best = peer.apply_pruning_finetune_cpp(original, best, calibration_data=held[:16])
    onnx.save(best, out)
    steps = 20
    while (left := seconds - (time.monotonic() - started)) > 1:
        began = time.monotonic()
        try:
            tuned, _ = peer.apply_block_finetune_all_blocks(
                original, best, calibration_data=held[:16], num_iterations=steps, learning_rate=1e-3
            )
        except Exception as error:  # it runs its own simplifier, which refuses some graphs: the closed form stands
            print(f"no training of blocks: {error}", file=sys.stderr)
            break
        took = time.monotonic() - began
        if took > left:
            break  # it cannot be stopped half-way: what took longer than was left does not count
        if tuned == best:
            break  # it finds no block that it can train: the closed form stands
        best = tuned
        onnx.save(best, out)
        steps = max(20, int(steps * (left - took) / took * 0.8))
        if took > left / 2:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
