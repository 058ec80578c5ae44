"""The language model that writes scripts, behind any address with OpenAI's API."""

from json import JSONDecodeError
from typing import Any

from .podcast_script import NoScript


async def ask_writer(
    messages: list[Any], model: str, url: str | None, api_key: str | None, timeout_s: float = 600.0
) -> str:
    """What a language model answers; an empty string where that is nothing.

    Args:
        messages: see `podcast_script.script_request`.
        model: its name.
        url: its address, which often ends in /v1; None: OpenAI's.
        api_key: its key, if it has one.
    Raises:
        NoScript: it cannot be asked, fails, or is no such model.
        ModuleNotFoundError: the extra `podcast` is not installed.
    """
    import openai

    try:
        async with openai.AsyncOpenAI(base_url=url, api_key=api_key or "none", timeout=timeout_s) as client:
            answer = await client.chat.completions.create(model=model, messages=messages)
        content: object = answer.choices[0].message.content
    except openai.OpenAIError as error:
        raise NoScript(f"the language model at {url or 'OpenAI'} failed: {error}") from error
    except (AttributeError, IndexError, TypeError, JSONDecodeError) as error:
        # `openai` hands on whatever came, such as a page as a str.
        raise NoScript(
            f"{url or 'OpenAI'} answers, but not as OpenAI's API does: is this the address, which often ends in /v1?"
        ) from error
    return content if isinstance(content, str) else ""
