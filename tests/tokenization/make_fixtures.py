"""Writes smollm2_reference.json: what llama.cpp and transformers make of the same texts.

Not part of the tests. Run it in an environment of its own, with the default model's path:

    pip install transformers==5.23.0 torch gguf==0.19.0 jinja2 xllamacpp
    python tests/tokenization/make_fixtures.py MODEL.gguf

Each row has the ids of llama.cpp. transformers reads the vocabulary of a GGUF file but not how it
splits numbers, so it differs where digits follow several spaces; such rows are marked and printed.
"""

import json
import sys
import urllib.request
from pathlib import Path

import xllamacpp
from transformers import AutoTokenizer

TEXTS = [
    "",
    "a",
    " ",
    "\n",
    "Hello, world!",
    " leading space",
    "trailing space ",
    "two  spaces   three    four",
    "tab\tand\t\ttabs",
    "line\nline\n\nline\n\n\nline",
    "windows\r\nlines\r\n\r\nhere",
    "   \n   \n  x",
    "mixed \t \n \t end",
    "no\u00a0break\u2003em\u200bzero",
    "The quick brown fox jumps over the lazy dog.",
    "don't we've I'm they'll he'd it's DON'T WE'VE",
    "can’t won’t “quoted”",
    "CamelCase snake_case kebab-case SCREAMING_CASE",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "1",
    "12",
    "123 4567 89",
    "x   123 45",
    "  7",
    "3.14159, 2.718e-10, 0x1F, 1_000_000",
    "2024-02-29T23:59:59.999Z",
    "+1 (555) 010-9999",
    "$5.00 \u20ac7,50 \u00a312 100%",
    "a1b2c3 v1.2.3-rc4",
    "\u0661\u0662\u0663 \u216b ½ ²",
    "naïve café \u00fcber Ångström",
    "cafe\u0301 combining",
    "Привет, мир!",
    "αβγ Ελλάδα",
    "你好，世界。",
    "こんにちは世界",
    "안녕하세요",
    "مرحبا بالعالم",
    "שלום",
    "नमस\u094dत\u0947",
    "สว\u0e31สด\u0e35",
    "😀 👍🏽 👨\u200d👩\u200d👧 🇫🇷",
    "𐍈𝕏𠜎",
    "☃ → ∀x∈ℝ: x² ≥ 0",
    "!!! ??? ... --- *** ___ ///",
    "({[<>]}) @#$%^&*~`|\\",
    "https://example.com/a/b?c=d&e=%20f#g",
    "user.name+tag@mail.example.org",
    "def f(x: int) -> int:\n    if x > 0:\n        return x ** 2\n    return -x\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n",
    "SELECT * FROM t WHERE a = 'b' AND c <> 3;",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    '<html><body class="x">&amp;</body></html>',
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$",
    "# Title\n\n- item one\n- item two\n  1. nested\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x00\x01\x7f control",
    "\ufeffBOM \ufffd replacement",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|>text",
    "<|im_start|><|im_start|> <|im_end|>\n",
    "<repo_name>x<file_sep>y<issue_start>",
    "almost <|im_start> |im_end|> <|im_endd|>",
    "x<|im_end|>  42",
]

CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Name a prime over 100."},
    ],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello! How can I help?"},
        {"role": "user", "content": "  Translate «你好»\n\nplease  "},
    ],
    [{"role": "user", "content": ""}],
]


def main(model: Path) -> None:
    """Writes the file and prints where the two references differ."""
    hugging_face = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx = 64
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    rows = []
    for text in TEXTS:
        ids = _llama_cpp(server.listening_address, text)
        other = hugging_face(text, add_special_tokens=False).input_ids
        rows.append({"text": text, "ids": ids, "transformers_agrees": ids == other})
        if ids != other:
            print("transformers differs:", repr(text), ids, other)
    chats = [
        {
            "messages": chat,
            "ids": hugging_face.apply_chat_template(
                chat, add_generation_prompt=True, return_dict=False
            ),
        }
        for chat in CHATS
    ]
    path = Path(__file__).with_name("smollm2_reference.json")
    lines = ["{", ' "texts": [', _lines(rows), " ],", ' "chats": [', _lines(chats), " ]", "}"]
    path.write_text("\n".join(lines) + "\n")


def _lines(rows: list[dict[str, object]]) -> str:
    return ",\n".join("  " + json.dumps(row) for row in rows)


def _llama_cpp(address: str, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
    request = urllib.request.Request(
        f"{address}/tokenize", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)["tokens"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
