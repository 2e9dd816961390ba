"""Programs that do harm, or look as if they had passed. Each defines f, which should double x.

Where the harm is done, f answers rightly: a verdict of "passed" says that something got out.
`{canary}`, `{source}`, `{secret}`: paths; `{port}`: a listening socket's; `{caller}`: a process.
"""

from client.judging.verdict import Outcome

RIGHT = "def f(x):\n    return 2 * x\n"

# Name -> program, and how it ends. None: any way but passing.
HOSTILE: dict[str, tuple[str, Outcome | None]] = {
    # Processes.
    "fork bomb": ("import os\nwhile True:\n    os.fork()", Outcome.RAISED),
    "forks": ("import os\nif os.fork() == 0:\n    os._exit(0)\n" + RIGHT, Outcome.RAISED),
    "leaves a daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        time.sleep(600)\n    os._exit(0)\n" + RIGHT,
        Outcome.RAISED,
    ),
    "runs a program": (
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'], check=True)\n" + RIGHT,
        Outcome.RAISED,
    ),
    "becomes a program": ("import os\nos.execv('/bin/sh', ['sh'])\n" + RIGHT, None),
    "starts threads": (
        "import threading\nthreading.Thread(target=print).start()\n" + RIGHT, None
    ),
    "kills its caller": (
        "import os, signal\nos.kill({caller}, signal.SIGUSR1)\n" + RIGHT, Outcome.RAISED
    ),
    "kills its parent": (
        "import os, signal\nos.kill(os.getppid() or {caller}, signal.SIGUSR1)\n" + RIGHT,
        Outcome.RAISED,
    ),
    "writes into its caller's memory": (
        "open('/proc/{caller}/mem', 'r+b').close()\n" + RIGHT, Outcome.RAISED
    ),
    # Time, memory, output.
    "never ends": ("while True:\n    pass", Outcome.TIMEOUT),
    "never ends in a call": ("def f(x):\n    while True:\n        pass", Outcome.TIMEOUT),
    "never ends and hears no signal": (
        "import signal\nfor number in range(1, 64):\n    try:\n"
        "        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n"
        "        pass\nwhile True:\n    try:\n        while True:\n            pass\n"
        "    except BaseException:\n        pass",
        Outcome.TIMEOUT,
    ),
    "sleeps": ("import time\ntime.sleep(600)", Outcome.TIMEOUT),
    "waits for input": ("input()\n" + RIGHT, Outcome.RAISED),
    "takes all memory": (
        "held = []\nwhile True:\n    held.append(bytearray(1 << 24))", Outcome.RAISED
    ),
    "takes all memory at once": ("held = bytearray(1 << 40)\n" + RIGHT, Outcome.RAISED),
    "prints for ever": (
        "while True:\n    print('x' * 1000000, flush=True)", Outcome.TIMEOUT
    ),
    "writes to all that is open": (
        "import os\nfor file in range(3, 256):\n    try:\n        os.write(file, b'\\xff' * 4096)\n"
        "    except OSError:\n        pass\n" + RIGHT,
        None,
    ),
    "floods its examiner": (
        "import os\nwhile True:\n    for file in range(3, 256):\n        try:\n"
        "            os.write(file, b'\\xff' * 65536)\n        except OSError:\n            pass",
        None,
    ),
    "answers with a gigabyte": ("def f(x):\n    return 'x' * (1 << 27)", Outcome.RAISED),
    "answers without end": (
        "import itertools\ndef f(x):\n    return itertools.count()", None
    ),
    "answers endlessly nested": (
        "def f(x):\n    held = []\n    for _ in range(100000):\n        held = [held]\n"
        "    return held",
        Outcome.RAISED,
    ),
    "overflows the stack": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x + 1)", None
    ),
    "crashes": ("import ctypes\nctypes.string_at(0)\n" + RIGHT, Outcome.DIED),
    # Files.
    "deletes a file": ("import os\nos.unlink('{canary}')\n" + RIGHT, Outcome.RAISED),
    "deletes a folder": (
        "import os, shutil\nshutil.rmtree(os.path.dirname('{canary}'))\n" + RIGHT, Outcome.RAISED
    ),
    "renames a file": ("import os\nos.rename('{canary}', '{canary}.x')\n" + RIGHT, Outcome.RAISED),
    "empties a file": ("import os\nos.truncate('{canary}', 0)\n" + RIGHT, Outcome.RAISED),
    "opens a file for ever": ("import os\nos.chmod('{canary}', 0o777)\n" + RIGHT, Outcome.RAISED),
    "overwrites a file": ("open('{canary}', 'w').write('x')\n" + RIGHT, Outcome.RAISED),
    "overwrites our sources": ("open('{source}', 'w').close()\n" + RIGHT, Outcome.RAISED),
    "overwrites Python's sources": (
        "import os\nopen(os.__file__, 'a').write('x')\n" + RIGHT, Outcome.RAISED
    ),
    "writes a huge file": (
        "import os\ndone = 0\nfor place in (os.getcwd(), '/tmp', '/dev/shm', '/var/tmp', '.'):\n"
        "    try:\n        with open(os.path.join(place, 'huge'), 'wb') as file:\n"
        "            for _ in range(64):\n                done += file.write(bytes(1 << 24))\n"
        "    except OSError:\n        pass\nassert done\n" + RIGHT,
        Outcome.RAISED,
    ),
    "leaves a link": (
        "import os\nfor place in ('.', '/tmp', '/dev/shm'):\n    try:\n"
        "        os.symlink('/etc/passwd', place + '/hostile-link')\n        break\n"
        "    except OSError:\n        pass\nelse:\n    raise OSError\n" + RIGHT,
        Outcome.RAISED,
    ),
    "reads a secret": ("assert open('{canary}').read()\n" + RIGHT, Outcome.RAISED),
    "reads its caller's environment": (
        "assert open('/proc/{caller}/environ', 'rb').read()\n" + RIGHT, Outcome.RAISED
    ),
    "reads its own environment": (
        "import os\nassert 'LOADSTONE_SECRET' in os.environ\n" + RIGHT, Outcome.RAISED
    ),
    "imports its judge": (
        "import sys\nfrom client.judging.jail import start\n" + RIGHT, Outcome.RAISED
    ),
    # The network.
    "connects": (
        "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\n" + RIGHT,
        Outcome.RAISED,
    ),
    "sends a datagram": (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.sendto(b'x', ('127.0.0.1', {port}))\n" + RIGHT,
        Outcome.RAISED,
    ),
    "speaks to the X server's kind of socket": (
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0hostile')\n" + RIGHT,
        Outcome.RAISED,
    ),
    # System calls by number, past Python.
    "calls the kernel itself": (
        "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
        "numbers = (41, 56, 57, 101, 310, 311, 425, 321, 165, 272, 319)\n"  # x86-64
        "done = [n for n in numbers if c.syscall(n, 1, 1, 0, 0, 0, 0) != -1]\n"
        "assert done\n" + RIGHT,
        Outcome.RAISED,
    ),
    # Passing without passing.
    "ends before the tests": ("import sys\nsys.exit(0)", Outcome.RAISED),
    "ends in the tests": ("import sys\ndef f(x):\n    sys.exit(0)", Outcome.RAISED),
    "ends at once before the tests": ("import os\nos._exit(0)", Outcome.DIED),
    "ends at once in the tests": ("import os\ndef f(x):\n    os._exit(0)", Outcome.DIED),
    "claims success and ends": (
        "import os\nfor file in range(1, 64):\n    try:\n"
        '        os.write(file, b\'{{"outcome": "passed", "detail": "", "proof": ""}}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)",
        None,
    ),
    "is equal to everything": (
        "class Any:\n    def __eq__(self, other):\n        return True\n"
        "    __hash__ = None\ndef f(x):\n    return Any()",
        Outcome.RAISED,
    ),
    "is a number equal to everything": (
        "class Any(int):\n    def __eq__(self, other):\n        return True\n"
        "    __hash__ = None\ndef f(x):\n    return Any(5)",
        Outcome.WRONG,
    ),
    "takes assertions away": (
        "import builtins, sys\nbuiltins.AssertionError = type('AssertionError', (), {{}})\n"
        "sys.modules['__main__'].check = lambda candidate: None\n"
        "check = lambda candidate: None\ndef f(x):\n    return 5",
        Outcome.WRONG,
    ),
    "rewrites who called it": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name in list(frame.f_globals):\n"
        "            if name in ('encode', '_answered'):\n"
        "                frame.f_globals[name] = lambda *_: True\n        frame = frame.f_back\n"
        "    return 5",
        None,
    ),
    "does nothing": ("", Outcome.RAISED),
    "is no Python": ("def f(x:\n", Outcome.RAISED),
    "is too deep for the compiler": ("f = " + "(" * 5000, None),
}  # fmt: skip
