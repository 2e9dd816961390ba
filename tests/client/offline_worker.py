"""The real worker, with the scripted engine under the name of ours. A process of its own."""

import sys

from client.engines import worker

if __name__ == "__main__":
    worker.ENGINES["loadstone"] = "offline_engine"
    sys.exit(worker.main())
