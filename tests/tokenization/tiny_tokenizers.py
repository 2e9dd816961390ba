"""Tiny tokenizers of every kind, made by their own libraries."""

import base64
import io
import json
from pathlib import Path

import gguf
import sentencepiece
import tiktoken
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The old bridge over the river was built of grey stone.",
    "In spring the water rises, and the fields beside it stand wet for weeks.",
    "Naïve café owners count 12 cups, 345 spoons and 6 789 grains of sugar.",
    "def area(width, height):\n    return width * height\n",
    "Мост через реку старый.",
    "河上的桥很旧。",
] * 4


def train_sentencepiece(kind: str, keeps_spaces: bool, prefix: bool = True) -> bytes:
    """A model file; with `keeps_spaces` and byte fallback it is made as Llama's is."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type=kind,
        vocab_size=400,
        byte_fallback=keeps_spaces,
        remove_extra_whitespaces=not keeps_spaces,
        add_dummy_prefix=prefix,
        normalization_rule_name="identity" if keeps_spaces else "nmt_nfkc",
        user_defined_symbols=["<tool>", "\n"] if keeps_spaces else [],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def write_spm_gguf(path: Path, model: bytes, **scalars: bool) -> Path:
    """The vocabulary of a sentencepiece model in a GGUF file, as a converter writes it."""
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(library.get_piece_size())
    kinds = [
        next(
            (
                int(kind)
                for kind, test in (
                    (gguf.TokenType.UNKNOWN, library.is_unknown),
                    (gguf.TokenType.CONTROL, library.is_control),
                    (gguf.TokenType.BYTE, library.is_byte),
                )
                if test(i)
            ),
            int(gguf.TokenType.NORMAL),
        )
        for i in ids
    ]
    for text in ("<tool>", "\n"):
        if library.piece_to_id(text) != library.unk_id():
            kinds[library.piece_to_id(text)] = int(gguf.TokenType.USER_DEFINED)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([library.id_to_piece(i) for i in ids])
    writer.add_token_scores([library.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(library.bos_id())
    writer.add_eos_token_id(library.eos_id())
    writer.add_unk_token_id(library.unk_id())
    for key, value in scalars.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_tiktoken(path: Path) -> tiktoken.Encoding:
    """Writes a tiny file in tiktoken's format; the encoder returned takes any text as one word."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for token in (b"th", b"the", b" the", b" b", b"ri", b"rid", b"\xd0\xbe", b"12", b"  ", b"\n\n"):
        ranks[token] = len(ranks)
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()]
    path.write_bytes(b"".join(lines))
    return tiktoken.Encoding("tiny", pat_str=r"(?s:.+)", mergeable_ranks=ranks, special_tokens={})


def byte_level_library() -> Library:
    """A byte-level BPE tokenizer like GPT-2's, with ChatML tokens and BOS."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|bos|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(CORPUS, trainer)
    library.add_tokens(["<toolé>"])
    library.post_processor = processors.TemplateProcessing("<|bos|> $A", None, [("<|bos|>", 0)])
    library.enable_truncation(8)  # published files have it; a prompt must not be cut
    return library


def spaced_library(start: int = 1) -> Library:
    """A BPE tokenizer with byte fallback whose decoder is Llama 2's."""
    library = Library(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    content = json.loads(library.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    content["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *([{"type": "Strip", "content": " ", "start": start, "stop": 0}] if start else []),
        ],
    }
    return Library.from_str(json.dumps(content))
