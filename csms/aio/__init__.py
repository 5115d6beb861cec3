"""What asyncio leaves to its users: tasks that run beside their owner, steps that are repeated through failures."""

from csms.aio.failure_log import FailureLog, cause
from csms.aio.parts import Part, Parts
from csms.aio.task_set import TaskSet

__all__ = ["FailureLog", "Part", "Parts", "TaskSet", "cause"]
