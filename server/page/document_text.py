"""A document on standard input to its text: `python -m sglang_moss.server.page.document_text html`.

A program of its own, since strangers wrote the document: what a hostile PDF takes of time and memory ends with it.
"""

import resource
import sys

from ...clients.podcast_source import UnusableSource, text_of_document

UNUSABLE = 2  # exit status
_MEMORY_BYTES = 2 << 30
_CPU_SECONDS = 60


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        text = text_of_document(sys.stdin.buffer.read(), sys.argv[1:] == ["html"], "the document")
    except (UnusableSource, MemoryError) as error:
        sys.stderr.write(f"{' '.join(str(error).split()) or 'the document takes too much memory'}\n")
        raise SystemExit(UNUSABLE) from None
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
