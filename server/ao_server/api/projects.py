"""ProjectService."""

from typing import Any

from agent_orchestration.v1 import projects_pb2, projects_pb2_grpc
from ao_server.api import calls, credential_messages, idempotency, messages, pages
from ao_server.engine import projects, secrets
from ao_server.engine.feed import Feed
from ao_server.engine.idempotency import once
from ao_server.engine.ids import Ids
from ao_server.engine.projects import Founded
from ao_server.errors import Forbidden, NotFound
from ao_server.store import projects as stored
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer


class ProjectServicer(projects_pb2_grpc.ProjectServiceServicer):
    """Makes projects and shows them."""

    def __init__(self, writer: Writer, reader: Reader, feed: Feed, ids: Ids) -> None:
        self._writer = writer
        self._reader = reader
        self._feed = feed
        self._ids = ids

    async def CreateProject(
        self, request: projects_pb2.CreateProjectRequest, context: Any
    ) -> projects_pb2.CreateProjectResponse:
        """Makes a project."""
        if calls.current().project_id != projects.DEFAULT:
            raise Forbidden("projects are made under an admin key of the default project")
        secret = secrets.new(secrets.KEY)
        operation = projects.create(request.name, secret, self._ids, lambda founded: self._feed.add(founded.feed))
        created = await self._writer.write(once(operation, idempotency.of(request), Founded))
        data = messages.filled(projects_pb2.Project, created.answer.project)
        data.api_key.CopyFrom(credential_messages.key(created.answer.key, None if created.is_replayed else secret))
        return projects_pb2.CreateProjectResponse(data=data, idempotent_replayed=created.is_replayed)

    async def GetProject(
        self, request: projects_pb2.GetProjectRequest, context: Any
    ) -> projects_pb2.GetProjectResponse:
        """Shows one project."""
        own = calls.current().project_id
        found = (
            await stored.get(self._reader, request.project_id)
            if own in (projects.DEFAULT, request.project_id)
            else None
        )
        if found is None:
            raise NotFound("there is no such project")
        return projects_pb2.GetProjectResponse(data=messages.filled(projects_pb2.Project, found))

    async def ListProjects(
        self, request: projects_pb2.ListProjectsRequest, context: Any
    ) -> projects_pb2.ListProjectsResponse:
        """Lists projects: all, or under a key of another than the default one, its own."""
        asked = pages.of(request)
        own = calls.current().project_id
        only = None if own == projects.DEFAULT else own
        found = await stored.page(self._reader, only=only, page=asked.page, limit=asked.limit)
        data = [messages.filled(projects_pb2.Project, each) for each in found.rows]
        return projects_pb2.ListProjectsResponse(data=data, pagination=asked.pagination(found))
