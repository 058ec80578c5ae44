"""Ties the codec's thread and our output streamer to a scheduler that has just loaded our model."""

import dataclasses
import signal
from typing import Any

from sglang_moss.codec_service import CodecService
from sglang_moss.output import AbortWatcher, SpeechSender, SpeechStreamer


def attach_codec(scheduler: Any) -> None:
    """Start the codec service of `scheduler` and put a `SpeechStreamer` in the place of its output streamer."""
    args = scheduler.server_args
    model = scheduler.tp_worker.model_runner.model
    metrics_model = args.served_model_name if args.enable_metrics else None
    codec = CodecService(
        model.codec, model.decoder_state, model.tokens, args.codec_address, args.codec_voices, metrics_model
    )
    sender = SpeechSender(scheduler.ipc_channels.send_to_tokenizer.socket)
    scheduler.output_streamer = SpeechStreamer.over(scheduler.output_streamer, sender, codec)
    scheduler.ipc_channels = dataclasses.replace(
        scheduler.ipc_channels, send_to_tokenizer=AbortWatcher(sender.socket, scheduler.output_streamer.forget)
    )
    scheduler.idle_sleeper.poller.register(codec.woken)
    # Ctrl-C in a terminal reaches every process; the HTTP process finishes what runs, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
