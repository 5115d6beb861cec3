"""What asyncio leaves to its users: tasks that run beside their owner, steps that are repeated through failures."""

from csms.aio.failure_log import FailureLog
from csms.aio.task_set import TaskSet

__all__ = ["FailureLog", "TaskSet"]
