"""`/start_profile`: SGLang's own route by its path, with the settings that end no server.

SGLang hands on what it is sent, and the scheduler fails of a folder that it cannot write, or of a profiler that is not
installed, and all that runs with it. Here that is a refusal, before anything is recorded.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from sglang_moss.early_checks import NOT_WRITABLE, writable_folder

from .errors import BadField, SpeechRoute
from .gate.paths import START_PROFILE

_MOST_STEPS = 10_000  # a trace of one has a thousand kernels


class ProfileFields(BaseModel):
    """What is recorded, and where."""

    model_config = ConfigDict(extra="forbid", strict=True)

    output_dir: str | None = Field(
        None, description="Folder of this machine for traces; by default SGLANG_TORCH_PROFILER_DIR, or /tmp."
    )
    num_steps: Annotated[int, Field(ge=1, le=_MOST_STEPS)] | None = Field(
        None, description="Steps after which it ends by itself; without them `/stop_profile` ends it."
    )
    activities: Annotated[list[Literal["CPU", "GPU"]], Field(min_length=1)] = ["CPU", "GPU"]
    with_stack: bool | None = None
    record_shapes: bool | None = None


def serve_step_profiles(app: FastAPI, tokenizer_manager: Any) -> None:
    """Put our route on SGLang's application, for the callers that its own had."""
    from sglang.srt.managers.io_struct import ProfileReq
    from sglang.srt.utils.auth import AuthLevel, auth_level

    @auth_level(AuthLevel.ADMIN_OPTIONAL)
    async def start_profile(fields: ProfileFields | None = None) -> Response:
        """Record what the scheduler's next steps launch, as traces for Perfetto."""
        asked = fields or ProfileFields.model_validate({})
        folder = _folder(asked.output_dir or os.environ.get("SGLANG_TORCH_PROFILER_DIR", "/tmp"))
        settings = asked.model_dump(exclude={"output_dir"})
        try:
            await tokenizer_manager.start_profile(ProfileReq(output_dir=str(folder), **settings))
        except RuntimeError as error:  # one is being recorded, or the profiler does not start
            raise BadField(str(error), None) from error
        return Response("Start profiling.\n")

    # On the router itself: SGLang reads who may call a route off those that it has, not off included ones.
    app.router.add_api_route(START_PROFILE, start_profile, methods=["GET", "POST"], route_class_override=SpeechRoute)


def _folder(name: str) -> Path:
    """
    Raises:
        BadField: the scheduler, which runs as the same user, could not write there.
    """
    try:
        return writable_folder(name)
    except NOT_WRITABLE as error:
        raise BadField("output_dir: the server cannot write into this folder; name another", "output_dir") from error
