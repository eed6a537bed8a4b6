"""Functions in processes of their own, and their memory."""

import os
import subprocess
import sys

import pytest

from studies.frame.processes import in_a_process, status


def test_a_process_of_its_own_hands_back_the_numbers_of_a_function():
    assert in_a_process(divmod, 17, 5) == [3.0, 2.0]


def test_the_environment_reaches_the_process():
    assert in_a_process(os.get_exec_path, environment={"PATH": "1:2.5"}) == [1.0, 2.5]


def test_a_function_that_fails_is_not_a_number():
    with pytest.raises(subprocess.CalledProcessError):
        in_a_process(divmod, 1, 0)


# in a process of its own: this one may hold memory that other tests freed, and use it again
PEAK = """
from studies.frame.processes import peak_of
print(*peak_of(lambda size: bytearray(size * 10**6).count(1), 200))
"""


def test_the_peak_is_that_of_the_work():
    command = [sys.executable, "-c", PEAK]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, peak = map(float, printed.split())
    assert 180 < peak - before < 260


def test_an_entry_that_the_system_does_not_state_is_nan():
    assert status("VmHWM") > 0
    assert status("VmNone") != status("VmNone")
