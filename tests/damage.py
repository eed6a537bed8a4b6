"""What disks do to files: flipped bits, lost ends; and whether whoever reads them notices."""

import re

import numpy as np

from jacobian_lab import InputError


def damaged(path, count=30, seed=0):
    """Damage a file in turn: `count` times one bit, its end lost at seven places, a byte too many;
    put it right at the end.
    """
    content, random = path.read_bytes(), np.random.default_rng(seed)
    for at in sorted({0, len(content) - 1, *random.integers(0, len(content), count - 2).tolist()}):
        changed = bytearray(content)
        changed[at] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        yield f"a bit of byte {at} of {len(content)}"
    whole = len(content.rstrip(b"\n"))  # a text's last newline says nothing
    for kept in {0, 1, 21, whole // 2, whole - 74, whole - 73, whole - 1} & {*range(whole)}:
        path.write_bytes(content[:kept])
        yield f"{kept} bytes of {len(content)}"
    path.write_bytes(content + b"\0")
    yield "a byte too many"
    path.write_bytes(content)


def unnoticed(path, read, message=None, count=30):
    """Return the damages of a file after which `read` does not raise an `InputError` that names the
    file.
    """
    found = []
    for damage in damaged(path, count):
        try:
            read()
        except InputError as error:
            if re.search(message or re.escape(str(path)), str(error)):
                continue
        found.append(damage)
    return found
