"""Copies the model of the OCR example out of the package that ships it."""

from __future__ import annotations

import shutil
from importlib.metadata import files
from pathlib import Path

READER = Path(__file__).parent / "ocr" / "reader.onnx"

if __name__ == "__main__" and not READER.exists():
    shipped = next(f for f in files("rapidocr-onnxruntime") or () if str(f).endswith("PP-OCRv4_rec_infer.onnx"))
    aside = READER.with_suffix(".part")
    shutil.copyfile(str(shipped.locate()), aside)
    aside.replace(READER)
