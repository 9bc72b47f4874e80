"""(6) Asking makes no context and takes no memory, as another process sees it."""

from __future__ import annotations

from device_process import DeviceProcess

from .answer import Answer, change
from .nvml import Nvml

STATE = """
flags, active = ctypes.c_uint(), ctypes.c_int()
result = [cuda().cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)),
          active.value]
"""
MEMACCT = """
import memacct
for _ in range(10):
    memacct.snapshot()
    memacct.snapshot(devices="all")
    _core.read_device(0, with_cuda=True)
_core.driver_diagnosis()
attempt(_core.identify, 0)
result = [memacct.snapshot().devices == (), reading(0, with_cuda=True)["cuda_free_bytes"]]
"""
FORK = 'result = in_fork("result = [_core.driver_state(), reading()]")["result"]'


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    before = nvml.free_bytes()
    with DeviceProcess(None) as process:
        _before_init(answer, process)
        steps = {"nothing but memacct": nvml.free_bytes()}
        process.run("call('cuInit', 0)")
        steps["cuInit"] = nvml.free_bytes()
        code, active = process.run(STATE)
        steps["cuDevicePrimaryCtxGetState"] = nvml.free_bytes()
        no_devices, cuda_free = process.run(MEMACCT)
        steps["memacct's readings"] = nvml.free_bytes()
        listed = process.pid in nvml.processes()
        answer.check(
            "the state of the context is told, and it is none",
            [code, active] == [0, 0],
            [code, active],
        )
        answer.check("no reading made a context", process.run(STATE) == [0, 0], None)
        answer.check("a snapshot of a process without a context has no device", no_devices, None)
        answer.check("cuMemGetInfo is not asked without a context", cuda_free is None, cuda_free)
        answer.check("no list names the process", not listed, listed)
        _with_context(answer, nvml, process)
    _judge(answer, before, steps)
    return answer


def _judge(answer: Answer, before: int, steps: dict[str, int]) -> None:
    taken = {}
    for name, free_bytes in steps.items():
        taken[name], before = change(before, free_bytes), free_bytes
    answer.figures["taken_by"] = taken
    for name, size in taken.items():
        if name != "cuInit":
            answer.check(f"{name}: takes 0 bytes of the device", size == 0, size)
    answer.text = "device memory taken by " + ", ".join(f"{k}: {v} B" for k, v in taken.items())


def _before_init(answer: Answer, process: DeviceProcess) -> None:
    state = process.run("reading(); result = _core.driver_state()")
    answer.check("reading devices does not load or initialise CUDA", state != "initialised", state)


def _with_context(answer: Answer, nvml: Nvml, process: DeviceProcess) -> None:
    """With a live context too, reading takes nothing; and a fork's child is not its parent."""
    process.run("context()")
    held = nvml.free_bytes()
    process.run("[_core.read_device(0, with_cuda=True) for _ in range(10)]")
    taken = change(held, nvml.free_bytes())
    answer.check("reading beside a live context takes 0 bytes", taken == 0, taken)
    process.run("attempt(_core.identify, 0)")
    taken = change(held, nvml.free_bytes())
    answer.check("identify() leaves 0 bytes behind", taken == 0, taken)
    state, reading = process.run(FORK)
    answer.check(
        "a fork's child holds nothing, and says so",
        [state, reading["own_bytes"]] == ["uninitialised", 0],
        [state, reading["own_bytes"]],
    )
