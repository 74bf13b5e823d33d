"""Bodies to begin with, by operation: what descriptors cannot say. Each works as it stands, on an empty system."""

from typing import Any, Final

_TASK: Final[dict[str, Any]] = {
    "agent_type": "data_processor",
    "type": "data_processing",
    "priority": "medium",
    "payload": {"source": "database", "output_format": "json"},
}

BODIES: Final[dict[str, dict[str, Any]]] = {
    "CreateAgent": {
        "name": "New Processing Agent",
        "type": "data_processor",
        "configuration": {"max_concurrent_tasks": 5, "timeout": 300, "retry_attempts": 3},
        "environment": "production",
    },
    "UpdateAgent": {
        "name": "Updated Agent Name",
        "configuration": {"max_concurrent_tasks": 15, "timeout": 600},
    },
    "CreateKey": {"name": "Reporting service", "scopes": ["tasks:read", "monitoring:read"], "expires_in": 2592000},
    "CreateOAuthClient": {"name": "Billing service", "scopes": ["tasks:read", "tasks:write"]},
    "CreateProject": {"name": "Staging"},
    "CreateTask": _TASK,
    "CreateTasks": {"tasks": [_TASK, _TASK | {"schedule": {"type": "delayed", "delay": 60}}]},
}
