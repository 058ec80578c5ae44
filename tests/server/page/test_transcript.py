"""`POST /page/transcript`: a clip, heard by the recogniser that is installed."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from fake_endpoints import serving, three_events
from judged_speech import SPEECH, WORDS
from sound_files import tone_file

from sglang_moss.evaluation.error_rates import error_rate
from sglang_moss.evaluation.hear import draft
from sglang_moss.server.page import programs, transcript

pytestmark = pytest.mark.wide

CLIP = (SPEECH / "rms_reference.flac").read_bytes()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    options = {"transcript_recogniser": "auto"}
    with serving(three_events, tmp_path_factory.mktemp("served"), helpers=options) as (opened, _):
        yield opened
