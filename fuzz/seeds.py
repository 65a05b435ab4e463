"""Makes the first inputs of each fuzz target out of fixtures/: fuzz/seeds.py FOLDER

Inputs are named by their content, so making them again adds nothing.
"""

import hashlib
import pathlib
import sys
import zipfile

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
IDS = ["", "run-7", "session_1", "..", "a/b", "CON", "nul.json", "x.", "a:b", "x" * 128, "é", "e\u0301"]


def files(ending):
    paths = sorted(FIXTURES.rglob("*" + ending))
    return [path.read_bytes() for path in paths if path.is_file()]


def members():
    """Every member of every archive that is one."""
    for path in sorted(FIXTURES.rglob("*.npz")):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    try:
                        yield name, archive.read(name)
                    except zipfile.BadZipFile:
                        pass  # a fixture whose checksum is wrong


def body(npy):
    """What comes after the header of an NPY file of version 1."""
    return npy[10 + int.from_bytes(npy[8:10], "little") :]


def seeds():
    for text in files(".jsonl"):
        yield "segment", text
        for line in text.splitlines():
            yield "entry", line
    old = FIXTURES / "predecessor" / "logs"
    events = [path.read_bytes() for path in sorted((old / "emergency").iterdir())]
    for number, path in enumerate(sorted((old / "telemetry").iterdir())):
        yield "import", path.read_bytes() + b"\0" + events[number % len(events)]
    for event in events:
        yield "import", b"\0" + event
    for archive in files(".npz"):
        yield "npz", archive
    tree = b'{"tidelog":1,"state":{"$array":{"dtype":"<f4","shape":[2],"member":"state/a.npy"}}}'
    for name, npy in members():
        if name == "tree.npy":
            yield "npz_parts", b"\0" + body(npy) + b"\n"
        for how in (b"\0", b"\1", b"\3"):
            yield "npz_parts", how + tree + b"\n" + npy
        if npy[10:].startswith(b"{'descr': '|O'"):
            yield "pickle", body(npy)
    for text in IDS:
        yield "id", text.encode()


for target, seed in seeds():
    folder = pathlib.Path(sys.argv[1]) / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
