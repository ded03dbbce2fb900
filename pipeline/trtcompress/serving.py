"""`trtcompress serve-check`: a model repository on a real server, checked against the engines that lie in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import UsageError

from .outputs import ServeCheck, ServeCheckResult


@contextmanager
def server_for(
    repository: Path, server: Path | None, address: str | None, packages: Path | None = None
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Address of a server's gRPC, and its log: of the one that runs there, or of one that is started for the block.

    Raises:
        UsageError: both are given, or none is installed; packages for one that runs.
        ServingError: it did not come up.
    """
    from trtcompress_engines.triton.server_packages import OPTION

    if address is not None:
        if server is not None:
            raise UsageError(
                "one server or the other", where="--server, --address", hint="leave --server out to ask one that runs"
            )
        if packages is not None:
            what = "a server that runs already has its packages"
            raise UsageError(what, where=f"{OPTION}, --address", hint="leave one of them out")
        if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
            raise UsageError(f"'{address}' is not HOST:PORT", where="--address", hint="--address localhost:8001")
        yield address, lambda: ""
        return
    from trtcompress_engines.triton.installed import find_server
    from trtcompress_engines.triton.server import running

    with running(repository, find_server(server, packages)) as started:
        yield started.grpc, started.log_text


def serve_check(
    repository: Path,
    *,
    server: Path | None = None,
    packages: Path | None = None,
    address: str | None = None,
    models: Sequence[str] = (),
    axes: Axes | None = None,
    requests: int,
    seed: int = 0,
    tolerance: float,
    tell: Callable[[str], None] = lambda line: None,
) -> ServeCheckResult:
    """Serve the repository, or ask the server that does, and check each model.

    Raises:
        UsageError: there is no such repository, model or server.
        RepositoryError: a configuration is damaged, or disagrees with its model.
        ServingError: the server did not come up.
    """
    from trtcompress_engines.triton.client import Client
    from trtcompress_engines.triton.serve_check import check_served
    from trtcompress_engines.triton.served_model import model_names, read_served

    served = [read_served(repository, name, axes or {}) for name in model_names(repository, models)]
    with server_for(repository, server, address, packages) as (grpc, log):
        with Client(grpc) as client:
            version = client.version()
        found = check_served(grpc, served, requests=requests, seed=seed, tolerance=tolerance, tell=tell, log=log)
    checks = tuple(ServeCheck(model=c.model, check=c.check, verdict=c.verdict, detail=c.detail) for c in found)
    verdicts = {check.verdict for check in checks}
    return ServeCheckResult(
        verdict="fail" if "fail" in verdicts else "not_measured" if "not_measured" in verdicts else "pass",
        repository=str(repository),
        server=version,
        seed=seed,
        requests=requests,
        checks=checks,
    )


def junit_xml(found: ServeCheckResult) -> str:
    """One test case a check. What could not be measured is `skipped`, never passed."""
    suites = ElementTree.Element("testsuites", name="serve-check")
    for model in dict.fromkeys(check.model for check in found.checks):
        checks = [check for check in found.checks if check.model == model]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=model,
            tests=str(len(checks)),
            failures=str(sum(check.verdict == "fail" for check in checks)),
            skipped=str(sum(check.verdict == "not_measured" for check in checks)),
        )
        for check in checks:
            case = ElementTree.SubElement(suite, "testcase", classname=f"serve-check.{model}", name=check.check)
            if check.verdict == "fail":
                ElementTree.SubElement(case, "failure", message=check.detail)
            elif check.verdict == "not_measured":
                ElementTree.SubElement(case, "skipped", message=check.detail)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
