"""Bodies to begin with, by operation: what descriptors cannot say. Each works as it stands, on an empty system."""

from typing import Any, Final

_TASK: Final[dict[str, Any]] = {
    "agent_type": "data_processor",
    "type": "data_processing",
    "priority": "medium",
    "payload": {"source": "database", "output_format": "json"},
}

_STEPS: Final[list[dict[str, Any]]] = [
    {"id": "extract", "name": "Data Extraction", "agent_type": "data_extractor", "order": 1},
    {
        "id": "process",
        "name": "Data Processing",
        "agent_type": "data_processor",
        "order": 2,
        "for_each": "steps.extract.output.rows",
        "retry": {"attempts": 3},
    },
]

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
    "CreateWorkflow": {
        "name": "Data Pipeline Workflow",
        "description": "Complete data processing pipeline",
        "steps": _STEPS,
    },
    "SimulateSteps": {
        "steps": _STEPS,
        "outcomes": [{"step_id": "extract", "output": {"rows": [1, 2, 3]}}, {"step_id": "process", "status": "failed"}],
    },
}
