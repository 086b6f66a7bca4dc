"""HDF5 files, of Keras and of others: what is said of them, and whether a layer in them runs code.

Helper module, not a command. HDF5 is not judged beyond that.
"""

from __future__ import annotations

import itertools
import re

from inspection.content import MB, Content, Look
from inspection.keras import KERAS_RUNS
from inspection.pickle_reader import Buffer
from inspection.report import UNKNOWN, UNSAFE

HDF5 = b"\x89HDF\r\n\x1a\n"
KERAS_LAYER = re.compile(rb'"class_name"\s*:\s*"(Lambda|TFSMLayer|TorchModuleWrapper|__lambda__)"')
# messages of HDF5, old and new, as its specification has them: numbers in a raw file, numbers that are put
# together from other HDF5 files, and how a link to another HDF5 file begins
ELSEWHERE = re.compile(
    rb"\x07\0.\0[\0-\x1f]\0\0\0\x01\0\0\0"
    rb"|\x07.\0[\0-\x1f](?:..)?\x01\0\0\0[\x01-\xff]\0[\x01-\xff]\0.{5}\0\0\0"
    rb"|\x08\0\x10\0[\0-\x1f]\0\0\0\x04\x03.{5}\0\0\0"
    rb"|\x08\x0e\0[\0-\x1f](?:..)?\x04\x03.{5}\0\0\0",
    re.S,
)
LINK = re.compile(rb"\x01([\x08-\x1f])\x40")
MOST_LINKS = 10_000  # places that look like one; 100 MB of numbers have some hundred
IN_FRONT = {  # what stands in the 512 bytes in front of HDF5
    b"MATLAB 7.3 MAT-file": "data of MATLAB (.mat)",
    b"HDF5-based Julia Data Format": "data of Julia (JLD2)",
    b"Julia data file (HDF5)": "data of Julia (JLD)",
}


def hdf5_places(data: Buffer) -> int:
    """HDF5 may begin at 0, 512, 1024, 2048 and so on. Gives the place, or -1."""
    place = 0
    while place < len(data):
        if bytes(data[place : place + 8]) == HDF5:
            return place
        place = max(512, 2 * place)
    return -1


def check_hdf5(data: Buffer, where: str, content: Content, look: Look) -> str:
    """HDF5: recognised, searched for a Lambda layer, and not judged beyond that."""
    place, head = hdf5_places(data), bytes(data[0:40])
    known = next((what for start, what in IN_FRONT.items() if head.startswith(start)), "")
    if place > 0 and not (place == 512 and known):
        content.add(UNKNOWN, "it is HDF5 behind something else", where)
    keras, runs = keras_layers(data)
    if runs:
        content.add(UNSAFE, f"it is a Keras model (HDF5) with {KERAS_RUNS[runs]}", where)
    elif known and place == 512:
        content.add(
            UNKNOWN,
            f"it is {known}, which is not judged here: it can name functions that its program makes",
            where,
            "h5py reads its numbers, and no more.",
        )
        return known
    else:
        kind = "a Keras model or weights (HDF5)" if keras else "HDF5"
        content.add(
            UNKNOWN,
            f"it is {kind}, which is not judged here; modelscan looks for Lambda layers in it",
            where,
            "Load weights only, into a model that you build yourself, with Keras's safe mode on.",
        )
    return "HDF5"


def keras_layers(data: Buffer) -> tuple[bool, str]:
    """Whether there are settings of a Keras model in these bytes, and a layer in them that runs code."""
    position, keras = 0, False
    while position < len(data):  # in pieces that overlap
        piece = bytes(data[position : position + 8 * MB])
        keras |= b"model_config" in piece or b"keras_version" in piece or b"_tf_keras" in piece
        if match := KERAS_LAYER.search(piece):
            return True, match[1].decode()
        position += 8 * MB - 4096 if len(piece) == 8 * MB else len(piece)
    return keras, ""


def reads_elsewhere(data: bytes) -> bool:
    """Whether some of its numbers lie in another file: whoever loads the weights reads that file."""
    links = list(itertools.islice(LINK.finditer(data), MOST_LINKS))
    return (
        ELSEWHERE.search(data) is not None
        or len(links) == MOST_LINKS
        or any(is_link(data, match.end(), match[1][0]) for match in links)
    )


def is_link(data: bytes, place: int, flags: int) -> bool:
    """Whether a link to another file goes on here: its name, then that of the file and of a group in it."""
    place += 8 * bool(flags & 4) + bool(flags & 16)  # the order in which it was made, the kind of letters
    wide = 1 << (flags & 3)
    place += wide + int.from_bytes(data[place : place + wide], "little")
    size = int.from_bytes(data[place : place + 2], "little")
    value = data[place + 2 : place + 2 + size]
    return len(value) == size > 4 and value[0] == 0 and value[-1] == 0 and value.count(0) == 3


def hdf5_end(data: bytes) -> int:
    """Where an HDF5 file ends, by its header; -1 where that cannot be told."""
    place = {0: 40, 1: 44, 2: 28, 3: 28}.get(data[8], -1) if len(data) > 60 else -1
    wide = data[13 if data[8] < 2 else 9] == 8 if place >= 0 else False  # bytes of an address
    return int.from_bytes(data[place : place + 8], "little") if wide else -1
