"""Starts a server, replays prompts against it, stops it.

`python -m benchmarks.serve_and_replay [client options] [-- server options]`
"""

import subprocess
import sys

from benchmarks.serving import serving


def main() -> int:
    """Returns the client's exit status, or 1 when the server did not start."""
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    client, server = arguments[:split], arguments[split + 1 :]
    try:
        with serving(server) as port:
            command = [sys.executable, "-m", "client.benchmark", "--port", str(port)]
            return subprocess.run([*command, *client], check=False).returncode
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
