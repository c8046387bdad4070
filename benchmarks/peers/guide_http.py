"""
The guide's design of the REST side, as many a FastAPI tutorial has it: async SQLAlchemy on asyncpg, pydantic answers, and in
every request a session of its own, the caller's session and user by their ORM, then the membership, then the permission.

It reads the product's tables, and has two of its own as the guide draws them: the activity log, written by the request itself,
and the day's usage, which each call reads, adds to and writes back (COUNTING=1) and so loses what runs at the same time.
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import BigInteger, Date, DateTime, Index, UniqueConstraint, func, or_, select
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from models.access.credentials import hash_secret
from models.tables import PermissionGrant, Task, Team, TeamMember, User, UserSession, Workspace

LIMIT = 50


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True), date: Date, int: BigInteger}


class GuideActivityLog(Base):
    __tablename__ = "guide_activity_logs"
    __table_args__ = (Index("ix_guide_activity_logs_team", "team_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    team_id: Mapped[UUID]
    user_id: Mapped[UUID]
    action: Mapped[str]
    resource_type: Mapped[str | None]
    resource_id: Mapped[UUID | None]
    details: Mapped[Any] = mapped_column("metadata", JSONB)
    ip_address: Mapped[str | None] = mapped_column(INET)
    user_agent: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GuideUsage(Base):
    __tablename__ = "guide_usage_stats"
    __table_args__ = (UniqueConstraint("team_id", "date"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    team_id: Mapped[UUID]
    date: Mapped[date]
    tasks_created: Mapped[int] = mapped_column(default=0)
    tasks_completed: Mapped[int] = mapped_column(default=0)
    llm_tokens_used: Mapped[int] = mapped_column(default=0)
    api_calls: Mapped[int] = mapped_column(default=0)
    storage_bytes: Mapped[int] = mapped_column(default=0)


class Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: datetime


class UserAnswer(Answer):
    email: str
    name: str


class TeamAnswer(Answer):
    name: str
    owner_id: UUID
    plan: str
    max_members: int
    updated_at: datetime


class PersonAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    name: str


class MemberAnswer(BaseModel):
    user: PersonAnswer
    role: str
    joined_at: datetime


class WorkspaceAnswer(Answer):
    team_id: UUID
    name: str
    description: str | None
    visibility: str
    created_by: UUID
    updated_at: datetime


class TaskAnswer(Answer):
    team_id: UUID
    workspace_id: UUID
    title: str
    prompt: str | None
    type: str
    status: str
    assignee_id: UUID | None
    result: Any
    error: str | None
    llm_tokens_used: int
    attempts: int
    agent_id: UUID | None
    lease_expires_at: datetime | None
    created_by: UUID
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ActivityAnswer(Answer):
    team_id: UUID
    user_id: UUID
    user_name: str
    action: str
    resource_type: str | None
    resource_id: UUID | None
    metadata: Any
    ip_address: str | None
    user_agent: str | None


class NewTask(BaseModel):
    title: str
    prompt: str | None = None
    type: str = "general"
    assignee_id: UUID | None = None


class Reported(BaseModel):
    external_id: str
    metric: str
    quantity: int


class Report(BaseModel):
    events: list[Reported]


engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("+psycopg", "").replace("postgresql:", "postgresql+asyncpg:", 1),
    pool_size=20,
    max_overflow=0,
)
make_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def database() -> AsyncIterator[AsyncSession]:
    async with make_session() as session:
        yield session


Database = Annotated[AsyncSession, Depends(database)]


async def signed_in(session: Database, authorization: Annotated[str, Header()]) -> User:
    token = authorization.removeprefix("Bearer ")
    found = await session.execute(select(UserSession).where(UserSession.token_hash == hash_secret(token)))
    by = found.scalar_one_or_none()
    if by is None or by.expires_at <= datetime.now(UTC):
        raise HTTPException(401)
    user = await session.get(User, by.user_id)
    if user is None:
        raise HTTPException(401)
    return user


Caller = Annotated[User, Depends(signed_in)]


async def permitted(session: AsyncSession, team_id: UUID, user: User, resource: str, action: str) -> None:
    is_member = (TeamMember.team_id == team_id, TeamMember.user_id == user.id)
    member = (await session.execute(select(TeamMember).where(*is_member))).scalar_one_or_none()
    if member is None:
        raise HTTPException(404)
    grant = select(PermissionGrant).where(
        PermissionGrant.role == member.role,
        PermissionGrant.resource == resource,
        PermissionGrant.action == action,
        or_(PermissionGrant.team_id.is_(None), PermissionGrant.team_id == team_id),
    )
    found = (await session.execute(grant)).scalar_one_or_none()
    if found is None or not found.allowed:
        raise HTTPException(403)


async def track(session: AsyncSession, team_id: UUID, **counts: int) -> None:
    """The guide's: today's row read, added to and written back."""
    today = datetime.now(UTC).date()
    of_today = (GuideUsage.team_id == team_id, GuideUsage.date == today)
    row = (await session.execute(select(GuideUsage).where(*of_today))).scalar_one_or_none()
    if row is None:
        row = GuideUsage(
            team_id=team_id,
            date=today,
            **dict.fromkeys(
                ("tasks_created", "tasks_completed", "llm_tokens_used", "api_calls", "storage_bytes"), 0
            ),
        )
        session.add(row)
    for name, count in counts.items():
        setattr(row, name, getattr(row, name) + count)
    await session.commit()


async def called(session: AsyncSession, team_id: UUID) -> None:
    if os.environ.get("COUNTING"):
        await track(session, team_id, api_calls=1)


@app.get("/me")
async def me(user: Caller) -> UserAnswer:
    return UserAnswer.model_validate(user)


@app.get("/teams")
async def my_teams(session: Database, user: Caller) -> list[TeamAnswer]:
    statement = select(Team).join(TeamMember, TeamMember.team_id == Team.id)
    mine = statement.where(TeamMember.user_id == user.id, Team.deleted_at.is_(None))
    found = await session.scalars(mine.order_by(Team.id).limit(LIMIT))
    return [TeamAnswer.model_validate(team) for team in found]


@app.get("/teams/{team_id}")
async def team(session: Database, user: Caller, team_id: UUID) -> TeamAnswer:
    await permitted(session, team_id, user, "teams", "read")
    found = await session.scalar(select(Team).where(Team.id == team_id, Team.deleted_at.is_(None)))
    await called(session, team_id)
    return TeamAnswer.model_validate(found)


@app.get("/teams/{team_id}/members")
async def members(session: Database, user: Caller, team_id: UUID) -> list[MemberAnswer]:
    await permitted(session, team_id, user, "members", "read")
    statement = select(TeamMember, User).join(User, User.id == TeamMember.user_id)
    found = await session.execute(
        statement.where(TeamMember.team_id == team_id).order_by(TeamMember.id).limit(LIMIT)
    )
    rows = found.all()
    await called(session, team_id)
    return [
        MemberAnswer(user=PersonAnswer.model_validate(person), role=member.role, joined_at=member.joined_at)
        for member, person in rows
    ]


@app.get("/teams/{team_id}/workspaces")
async def workspaces(session: Database, user: Caller, team_id: UUID) -> list[WorkspaceAnswer]:
    await permitted(session, team_id, user, "workspaces", "read")
    statement = select(Workspace).where(Workspace.team_id == team_id)
    found = (await session.scalars(statement.order_by(Workspace.id).limit(LIMIT))).all()
    await called(session, team_id)
    return [WorkspaceAnswer.model_validate(each) for each in found]


@app.get("/teams/{team_id}/workspaces/{workspace_id}/tasks")
async def tasks(session: Database, user: Caller, team_id: UUID, workspace_id: UUID) -> list[TaskAnswer]:
    await permitted(session, team_id, user, "tasks", "read")
    statement = select(Task).where(Task.team_id == team_id, Task.workspace_id == workspace_id)
    found = (await session.scalars(statement.order_by(Task.id.desc()).limit(LIMIT))).all()
    await called(session, team_id)
    return [TaskAnswer.model_validate(each) for each in found]


@app.post("/teams/{team_id}/workspaces/{workspace_id}/tasks", status_code=201)
async def create_task(
    request: Request, session: Database, user: Caller, team_id: UUID, workspace_id: UUID, body: NewTask
) -> TaskAnswer:
    await permitted(session, team_id, user, "tasks", "create")
    workspace = select(Workspace).where(Workspace.team_id == team_id, Workspace.id == workspace_id)
    if await session.scalar(workspace) is None:
        raise HTTPException(404)
    made = Task(team_id=team_id, workspace_id=workspace_id, created_by=user.id, **body.model_dump())
    session.add(made)
    await session.flush()
    session.add(
        GuideActivityLog(
            team_id=team_id,
            user_id=user.id,
            action="task_created",
            resource_type="task",
            resource_id=made.id,
            details={"title": made.title},
            ip_address=request.client.host if request.client else None,
            user_agent=request.headers.get("user-agent"),
        )
    )
    await track(session, team_id, tasks_created=1, api_calls=1 if os.environ.get("COUNTING") else 0)
    return TaskAnswer.model_validate(made)


@app.get("/teams/{team_id}/tasks/{task_id}")
async def task(session: Database, user: Caller, team_id: UUID, task_id: UUID) -> TaskAnswer:
    await permitted(session, team_id, user, "tasks", "read")
    statement = select(Task).join(Workspace, Workspace.id == Task.workspace_id)
    found = await session.scalar(statement.where(Task.team_id == team_id, Task.id == task_id))
    await called(session, team_id)
    return TaskAnswer.model_validate(found)


@app.get("/teams/{team_id}/activity")
async def activity(session: Database, user: Caller, team_id: UUID) -> list[ActivityAnswer]:
    await permitted(session, team_id, user, "activity", "read")
    statement = select(GuideActivityLog, User.name).join(User, User.id == GuideActivityLog.user_id)
    newest = statement.where(GuideActivityLog.team_id == team_id).order_by(GuideActivityLog.created_at.desc())
    rows = (await session.execute(newest.limit(LIMIT))).all()
    await called(session, team_id)
    return [
        ActivityAnswer(
            id=row.id,
            team_id=row.team_id,
            user_id=row.user_id,
            user_name=name,
            action=row.action,
            resource_type=row.resource_type,
            resource_id=row.resource_id,
            metadata=row.details,
            ip_address=None if row.ip_address is None else str(row.ip_address),
            user_agent=row.user_agent,
            created_at=row.created_at,
        )
        for row, name in rows
    ]


@app.post("/teams/{team_id}/usage", status_code=202)
async def report(session: Database, user: Caller, team_id: UUID, body: Report) -> dict[str, int]:
    await permitted(session, team_id, user, "usage", "create")
    counts: dict[str, int] = {"api_calls": 1} if os.environ.get("COUNTING") else {}
    for each in body.events:
        counts[each.metric] = counts.get(each.metric, 0) + each.quantity
    await track(session, team_id, **counts)
    return {"accepted": len(body.events), "duplicates": 0}
