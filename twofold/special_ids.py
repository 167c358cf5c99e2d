"""Token ids that every tokenizer of ours starts with; tokenizer and trainer must agree on them.

Documents are joined by eos alone, so eos is what training saw before the first token of a document, and every file of
an export names it as bos. Id 1 is in no training text; it keeps the ids after it in their places.
"""

SPECIAL_TOKENS = ("<|pad|>", "<|unused|>", "<|eos|>", "<|unk|>")
"""By id, from 0."""
PAD_ID, _, EOS_ID, UNK_ID = range(len(SPECIAL_TOKENS))
TOKEN_ROLES = {
    "pad_token": SPECIAL_TOKENS[PAD_ID],
    "bos_token": SPECIAL_TOKENS[EOS_ID],
    "eos_token": SPECIAL_TOKENS[EOS_ID],
    "unk_token": SPECIAL_TOKENS[UNK_ID],
}
"""What `transformers` and its users call them."""
