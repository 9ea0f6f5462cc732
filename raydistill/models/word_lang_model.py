"""The word-level language model of Distiller's word_lang_model files: embedding, recurrent layers, linear decoder."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from raydistill.errors import ConfigError, Fault, close_match

_CELLS: dict[str, tuple[Callable[..., nn.RNNBase], dict[str, object]]] = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "RNN_TANH": (nn.RNN, {"nonlinearity": "tanh"}),
    "RNN_RELU": (nn.RNN, {"nonlinearity": "relu"}),
}


class WordLangModel(nn.Module):
    """Input int64 tokens (T, B), output logits (T, B, num_classes) and the hidden state after the last token.

    num_classes: the vocabulary. emsize, nhid, nlayers, dropout, tied: as the script's options of that name; `tied`
    decodes with the embedding's own weight (Press and Wolf 2016, arXiv 1608.05859), which is then one parameter,
    ``encoder.weight``. rnn_type: LSTM, GRU, RNN_TANH or RNN_RELU.

    Raises:
        ConfigError: an unknown rnn_type, or tied weights of two sizes.
    """

    def __init__(
        self,
        num_classes: int = 33_278,
        emsize: int = 200,
        nhid: int = 200,
        nlayers: int = 2,
        dropout: float = 0.2,
        tied: bool = False,
        rnn_type: str = "LSTM",
    ) -> None:
        super().__init__()
        if rnn_type not in _CELLS:
            raise ConfigError(
                Fault("rnn_type", "unknown kind of recurrent layer", rnn_type, close_match(rnn_type, _CELLS))
            )
        if tied and nhid != emsize:
            raise ConfigError(Fault("tied", f"needs nhid equal to emsize {emsize}", nhid, f"set nhid: {emsize}"))
        cell, options = _CELLS[rnn_type]
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(num_classes, emsize)
        # torch's dropout stands between the layers, so that one layer alone must not be given any
        self.rnn = cell(emsize, nhid, nlayers, dropout=dropout if nlayers > 1 else 0.0, **options)
        self.decoder = nn.Linear(nhid, num_classes)
        if tied:
            self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        if not tied:
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor, hidden: object = None) -> tuple[Tensor, object]:
        """hidden: what the call for the preceding tokens returned (detach it to cut backpropagation); None begins."""
        states, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        return self.decoder(self.drop(states)), hidden
