"""What only a real GPU can answer, one question a module.

Each module has ``ask(short) -> Answer`` and is run in a process of its own by
`run.run_question`: by the command (``bench/gpu/answer.py``) and by the tests (``tests/gpu``).
Nothing here needs more than memacct, its test helper `device_process` and the driver.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question's module, and what the command needs to know before it asks.

    Attributes:
        name: of the module.
        number: of the question; None for those beyond the nine.
        title: what is asked.
        limit_s: after that long its process is ended.
    """

    name: str
    number: int | None
    title: str
    limit_s: float


# Those that could upset a driver come last: what they break can break only themselves.
QUESTIONS = (
    Question("passive", 6, "does asking cost memory, or make a context?", 40),
    Question("context", None, "what does a context take, and give back?", 40),
    Question("records", 1, "how long are the records of each list?", 40),
    Question("equation", 4, "does the sum of the list, the reserve and the rest add up?", 40),
    Question("own", 3, "is own exactly what was allocated, for each kind of memory?", 60),
    Question("namespaces", 5, "under which pid does a container see itself?", 60),
    Question("fingerprint", 8, "does an allocation find its process's record?", 90),
    Question("latency", 2, "how long do the calls take, idle and beside a neighbour?", 110),
    Question("sampler", None, "what does sampling at 100 Hz cost the work beside it?", 45),
    Question(
        "torch_steps", None, "what does torch take step by step, and do the accounts agree?", 75
    ),
    Question("release", 7, "how soon after SIGKILL is memory free?", 75),
    Question("mps", 9, "in which list do clients of MPS appear?", 60),
    Question("managed", 3, "is managed memory in nobody's number?", 40),
)
NAMES = tuple(question.name for question in QUESTIONS)
