"""Writes the Python stubs of orchestrator.proto: `python -m protos.generate [OUTPUT_DIR]`."""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(output: Path) -> None:
    """Writes protos/orchestrator_pb2.py, .pyi and _pb2_grpc.py below `output`."""
    arguments = [
        "protoc",
        f"--proto_path={ROOT}",
        f"--python_out={output}",
        f"--pyi_out={output}",
        f"--grpc_python_out={output}",
        "protos/orchestrator.proto",
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed; its message is above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
