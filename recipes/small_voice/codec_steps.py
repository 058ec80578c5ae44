"""One step of codec training: codec, listeners and, once they take part, discriminators, all from the same pass.

On a GPU the step is two captured graphs, one that fills the gradients and one that follows them, with the processes'
average between; the host says which clips, and waits for nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sglang_moss.codec.codec import Codec

from .codebooks import Codebooks
from .codec_data import ClipSource
from .codec_forward import decode_frames, encode_frames, quantize
from .codec_losses import Discriminators, SpectralLoss, discriminator_loss, generator_losses
from .ctc import ctc_losses
from .letters import STEPS, LettersHead, Recogniser, heard_difference
from .parameter_group import ParameterGroup

NAMES = ("mel", "phase", "vq", "letters", "words", "heard", "differs", "judge", "adversarial", "features")
PLAN_ROWS = 7  # a clip source's five, the codebooks that are kept, where the discriminators begin to listen


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    mel: float = 15.0
    phase: float = 0.3
    wave: float = 0.05
    codebooks: float = 1.0
    scale: float = 0.1
    letters: float = 1.0
    heard: float = 2.0
    differs: float = 1.0
    adversarial: float = 1.0
    features: float = 4.0


@dataclass(frozen=True)
class Sizes:
    """Of a batch, in clips and samples."""

    clips: int
    length: int
    judged_clips: int
    judged_length: int


class CodecSteps:
    """Modules, their parameters, and what they do with a plan of clips.

    Args:
        codec: trained in place.
        source: of clips.
        sizes: of a batch.
        rate: the codec's highest learning rate.
        weights: of the losses.
        mode: `graph`, `compiled` or `eager`.
        keeps_codes: train the decoder alone, so that codes made before stay what they are.
    """

    def __init__(
        self,
        codec: Codec,
        source: ClipSource,
        sizes: Sizes,
        rate: float,
        weights: Weights,
        mode: str,
        keeps_codes: bool = False,
    ) -> None:
        device = codec.device
        self.codec, self.weights, self._source, self._sizes, self._mode = codec, weights, source, sizes, mode
        self._is_cuda = device.type == "cuda"
        self.spectral = SpectralLoss().to(device)
        self.head = LettersHead(codec.config.quantizer.rvq_dim).to(device)
        self.recogniser = Recogniser().to(device)
        self.judges = Discriminators().to(device)
        self.codebooks = Codebooks(codec.quantizer)
        n_counted = torch.Size(self.codebooks.shape).numel()
        self.keeps_codes = keeps_codes
        if keeps_codes:
            for part in (codec.encoder, codec.quantizer.input_proj, codec.quantizer.quantizers):
                part.requires_grad_(False)
        trained = [p for p in codec.parameters() if p.requires_grad]
        listeners = [*self.head.parameters(), *self.recogniser.parameters()]
        self.groups = {
            "codec": ParameterGroup(trained, rate, n_more=n_counted),
            "listeners": ParameterGroup(listeners, 8e-4),
            "judges": ParameterGroup(self.judges.parameters(), 4e-4, decay=0.0),
        }
        self._counted = self.groups["codec"].more.view(self.codebooks.shape)
        self.average = [p.detach().clone() for p in codec.parameters()]
        self.plan = torch.zeros(PLAN_ROWS, sizes.clips, dtype=torch.int64, device=device)
        self.share_heard, self.share_judged = torch.zeros((), device=device), torch.zeros((), device=device)
        self.told = torch.zeros(len(NAMES), device=device)
        n_frames = sizes.clips * sizes.length // codec.config.frame_samples
        quantizer = codec.config.quantizer
        self.sought = torch.zeros(quantizer.n_codebooks, n_frames, quantizer.codebook_dim, device=device)
        self._encode = lambda x: encode_frames(codec, x)
        self._quantize = lambda x, kept: quantize(codec.quantizer, x, kept)
        self._decode = lambda x: decode_frames(codec, x)
        if mode in ("graph", "compiled"):
            self._encode, self._quantize, self._decode = (
                torch.compile(f, dynamic=False) for f in (self._encode, self._quantize, self._decode)
            )
        self._graphs: dict[bool, tuple] = {}

    def step(self, *, judged: bool) -> None:
        """Train on what `plan` says; losses are added to `told`."""
        graphs = self._graphs.get(judged)
        if graphs is None:
            self.fill(judged=judged)
        else:
            graphs[0].replay()
        for name in self._followed(judged):
            self.groups[name].average()
        if graphs is None:
            self.follow(judged=judged)
        else:
            graphs[1].replay()

    def capture(self, *, judged: bool) -> None:
        """Make graphs of the step, some of which have been done without on this stream."""
        if self._mode != "graph" or judged in self._graphs:
            return
        torch.cuda.synchronize()
        graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        kwargs = {"stream": torch.cuda.current_stream(), "capture_error_mode": "thread_local"}
        with torch.cuda.graph(graphs[0], **kwargs):
            self.fill(judged=judged)
        with torch.cuda.graph(graphs[1], **kwargs):
            self.follow(judged=judged)
        torch.cuda.synchronize()
        self._graphs[judged] = graphs

    def fill(self, *, judged: bool) -> None:
        """Gradients of all groups, and what the codebooks were asked."""
        for name in self._followed(judged):
            self.groups[name].vector.zero_()
        w, sizes = self.weights, self._sizes
        clips = self._source.cut(self.plan[:5], sizes.length)
        real = clips.samples
        with self._autocast():
            quantized = self._quantize(self._encode(real), self.plan[5])
            made = self._decode(quantized.output)
        made = made.float()
        # What is wanted of the wave itself ends here; it goes back through the codec once, as one gradient.
        wave = made.detach().requires_grad_()
        mel, phase = self.spectral(wave, real)
        apart = (wave - real).abs().mean() / real.abs().mean().clamp_min(1e-4)
        with self._autocast():
            of_real, of_made = self.recogniser(real), self.recogniser(wave)
            first = self.head(quantized.first)
        heard, differs = heard_difference(of_real, of_made)
        loss = w.mel * mel + w.phase * phase + w.wave * apart
        loss = loss + self.share_heard * (w.heard * heard + w.differs * differs)
        judge = adversarial = features = mel.new_zeros(())
        if judged:
            with self._autocast():
                scores_real, scores_made = self.judges(self._part(real)), self.judges(self._part(wave))
            judge = discriminator_loss(scores_real, scores_made)
            adversarial, features = generator_losses(scores_real, scores_made)
            loss = loss + self.share_judged * (w.adversarial * adversarial + w.features * features)
        (wanted,) = torch.autograd.grad(loss, wave, retain_graph=judged)
        if judged:
            own = self.groups["judges"].parameters
            for parameter, gradient in zip(own, torch.autograd.grad(judge, own), strict=True):
                parameter.grad.add_(gradient)
        letters, words = self._letters(first, of_real[1], clips.targets, clips.n_letters)
        total = (
            w.codebooks * quantized.loss
            + w.scale * quantized.scale
            + w.letters * letters
            + words
            + (made * wanted).sum()
        )
        total.backward()
        with torch.no_grad():
            self.codebooks.count(quantized.codes, quantized.sought, self._counted)
            self.sought.copy_(quantized.sought)
            values = (mel, phase, quantized.loss, letters, words, heard, differs, judge, adversarial, features)
            self.told.add_(torch.stack([value.detach().float() for value in values]))

    def follow(self, *, judged: bool) -> None:
        """What the gradients and the counts say."""
        for name in self._followed(judged):
            self.groups[name].update()
        if not self.keeps_codes:
            self.codebooks.follow(torch.where(self._counted.isfinite().all(), self._counted, self._kept_counts()))

    @torch.no_grad()
    def average_weights(self, decay: float) -> None:
        """Let the averages follow."""
        torch._foreach_lerp_(self.average, list(self.codec.parameters()), 1 - decay)

    def state(self) -> dict:
        """To go on from."""
        return {
            "groups": {name: group.state() for name, group in self.groups.items()},
            "codebooks": self.codebooks.tensors(),
            "average": self.average,
        }

    @torch.no_grad()
    def load(self, state: dict) -> None:
        """What `state` gave."""
        for name, group in self.groups.items():
            group.load(state["groups"][name])
        values = [*state["codebooks"], *state["average"]]
        for mine, value in zip([*self.codebooks.tensors(), *self.average], values, strict=True):
            mine.copy_(value)
        self._graphs.clear()  # they know the optimizers' former numbers

    def load_listeners(self, state: dict) -> None:
        """Of another codec's `state`: those who hear and judge, without the codec."""
        for name in ("listeners", "judges"):
            self.groups[name].load(state["groups"][name])

    def _autocast(self) -> torch.autocast:
        """16-bit products on a GPU; a captured graph must not find casts made before it."""
        return torch.autocast("cuda" if self._is_cuda else "cpu", torch.bfloat16, self._is_cuda, cache_enabled=False)

    def _followed(self, judged: bool) -> list[str]:
        return [name for name in self.groups if judged or name != "judges"]

    def _part(self, samples: Tensor) -> Tensor:
        n = self._sizes.judged_clips
        at = self.plan[6, :n, None] + torch.arange(self._sizes.judged_length, device=samples.device)
        return samples[:n].gather(1, at)

    def _letters(self, first: Tensor, heard: Tensor, targets: Tensor, n_letters: Tensor) -> tuple[Tensor, Tensor]:
        """Nats a letter, of the first codebook and of the recogniser, over clips that hold their text as a whole."""
        assert len(first) == len(heard) == STEPS * self._sizes.length // self.codec.config.frame_samples
        losses = ctc_losses(torch.cat([first, heard], 1), targets.repeat(2, 1), n_letters.repeat(2))
        losses = losses.view(2, -1).sum(1) / n_letters.sum().clamp_min(1)
        return losses[0], losses[1]

    def _kept_counts(self) -> Tensor:
        return torch.cat([self.codebooks.counts[:, :, None], self.codebooks.sums], 2)
