"""Runs the sweep command on scripted servers."""

import json
import sys
from pathlib import Path

from client_rig import conversation
from process_rig import ProcessRig

SERVER = Path(__file__).with_name("sweep_server.py")


class Rig(ProcessRig):
    """Sweeps of scripted servers in a folder of their own."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        super().__init__(folder, "sweep.json", "loadstone-sweep-1")
        self.gate = folder / "gate"
        data = folder / "data.json"
        data.write_text(json.dumps([conversation("go please", "a" * 8)]))
        self._client = ["--client", "--dataset-path", str(data), "--tokenizer", str(tokenizer)]

    def command(self, *arguments: str, server: str = "") -> list[str]:
        """The command line. Peaks are given, so that nothing is measured."""
        template = (
            f"{sys.executable} {SERVER} --batch-size {{batch_size}} --cache-length {{cache_length}}"
            f" --quantize {{quantize}} --ready-file {{ready_file}} {server}"
        )
        return [
            *(sys.executable, "-m", "client.sweep", "--server-command", template),
            *("--out", str(self.out), "--num-prompts", "4", "--stop-seconds", "2"),
            *("--bandwidth-gbps", "10", "--peak-tflops", "1", *arguments, *self._client),
        ]
