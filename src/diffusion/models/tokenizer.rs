//! CLIP's tokenizer from `vocab.json` and `merges.txt`, padded and cut as `tokenizer_config.json` says.
//!
//! The byte-pair encoding is the `tokenizers` crate's; what is here are CLIP's rules: NFC, one space for any white
//! space, lower case, its split into words, and `</w>` at a word's end.

use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::weights::ModelFiles;
use crate::{Error, Result};

const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

const END: &str = "<|endoftext|>";

/// What a tokenizer's folder must hold.
pub const NEEDED: [&str; 2] = ["vocab.json", "merges.txt"];

/// All that is read of a tokenizer's folder where it is there.
pub const FILES: [&str; 4] = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];

/// A special token in a configuration: its text, alone or inside an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token { content: String },
}

impl Special {
    fn text(&self) -> &str {
        match self {
            Special::Text(t) | Special::Token { content: t } => t,
        }
    }
}

#[derive(Default, Deserialize)]
struct Config {
    model_max_length: Option<f64>,
    bos_token: Option<Special>,
    eos_token: Option<Special>,
    unk_token: Option<Special>,
    pad_token: Option<Special>,
}

/// Text to token ids of one length.
pub struct ClipTokenizer {
    inner: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
}

impl ClipTokenizer {
    /// Loads `{folder}/` of a model. `longest`: tokens that the text encoder takes at most.
    pub fn load(files: &ModelFiles, folder: &str, longest: usize) -> Result<Self> {
        let path = |name: &str| format!("{folder}/{name}");
        let mut config: Config = match files.has(&path("tokenizer_config.json")) {
            true => files.json(&path("tokenizer_config.json"))?,
            false => Config::default(),
        };
        if config.pad_token.is_none() && files.has(&path("special_tokens_map.json")) {
            config.pad_token = files.json::<Config>(&path("special_tokens_map.json"))?.pad_token;
        }
        let vocab: HashMap<String, u32> = files.json(&path("vocab.json"))?;
        let merges = files.read(&path("merges.txt"))?;
        let label = files.label(&path("merges.txt"));
        let merges = std::str::from_utf8(&merges).map_err(|e| Error::Config(format!("{label}: {e}")))?;
        let merges = merges
            .lines()
            .filter(|l| !l.starts_with("#version") && !l.trim().is_empty())
            .map(|l| match l.split_once(' ') {
                Some((a, b)) => Ok((a.to_string(), b.to_string())),
                None => Err(Error::Config(format!("{label}: `{l}` is no merge of two tokens"))),
            })
            .collect::<Result<Vec<_>>>()?;

        let name = |s: &Option<Special>, default: &str| s.as_ref().map_or(default, Special::text).to_string();
        let special = [&config.bos_token, &config.eos_token, &config.unk_token, &config.pad_token];
        let defaults = ["<|startoftext|>", END, END, END];
        let special = std::array::from_fn(|i| name(special[i], defaults[i]));
        let max_length = config.model_max_length.map_or(longest, |m| longest.min(m.max(0.0) as usize));
        Self::build(vocab, merges, special, max_length, &files.label(folder))
    }

    /// CLIP's own tokenizer, whose merges are built in, padded with `pad`: for checkpoints that carry none.
    pub fn clip(pad: &str, longest: usize) -> Result<Self> {
        const MERGES: &str = include_str!("../../../models/clip/merges.txt");
        let merges = MERGES.lines().skip(1).filter_map(|l| l.split_once(' '));
        let merges: Vec<(String, String)> = merges.map(|(a, b)| (a.into(), b.into())).collect();
        // The vocabulary: a symbol for each byte, the printable ones first; the same at a word's end; what is merged.
        let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let others = (0u32..).map(|n| char::from_u32(256 + n)).take((0..=u8::MAX).filter(|b| !printable(b)).count());
        let symbols = (0..=u8::MAX).filter(printable).map(|b| Some(char::from(b))).chain(others).flatten();
        let symbols: Vec<String> = symbols.map(String::from).collect();
        let ends = symbols.iter().map(|s| format!("{s}</w>"));
        let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
        let tokens = symbols.iter().cloned().chain(ends).chain(merged);
        let tokens = tokens.chain(["<|startoftext|>".to_string(), END.to_string()]);
        let vocab = tokens.zip(0..).collect();
        let special = ["<|startoftext|>", END, END, pad].map(String::from);
        Self::build(vocab, merges, special, longest, "CLIP's tokenizer")
    }

    /// `special`: begin and end of text, what stands for the unknown, padding.
    fn build(
        vocab: HashMap<String, u32>,
        merges: Vec<(String, String)>,
        [bos, eos, unk, pad]: [String; 4],
        max_length: usize,
        label: &str,
    ) -> Result<Self> {
        let id = |token: &str| {
            let id = vocab.get(token).copied();
            id.ok_or_else(|| Error::Config(format!("{label}: its vocabulary has no token {token:?}")))
        };
        let (bos_id, eos_id, pad_id) = (id(&bos)?, id(&eos)?, id(&pad)?);

        let broken = |e: tokenizers::Error| Error::Config(format!("{label}: {e}"));
        let bpe = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .unk_token(unk)
            .end_of_word_suffix("</w>".into())
            .build()
            .map_err(broken)?;
        let mut inner = Tokenizer::new(bpe);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(broken)?;
        inner
            .with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))
            .map_err(broken)?;
        let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true);
        inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            PreTokenizerWrapper::Split(words.map_err(broken)?),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ])));
        inner.add_special_tokens([&bos, &eos].map(|t| AddedToken::from(t.clone(), true))).map_err(broken)?;
        if max_length < 3 {
            return Err(Error::Config(format!(
                "{label}: texts of {max_length} tokens have no room for a token between begin and end"
            )));
        }
        Ok(ClipTokenizer { inner, bos: bos_id, eos: eos_id, pad: pad_id, max_length })
    }

    /// Tokens in every encoded text.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Tokens that fit between begin and end of text.
    pub fn room(&self) -> usize {
        self.max_length - 2
    }

    /// The text's tokens, however many, without begin and end of text.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| Error::input(format!("tokenizer: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Begin-of-text, the tokens cut to fit, end-of-text, padding: always [`Self::max_length`] ids.
    pub fn frame(&self, tokens: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.max_length);
        ids.push(self.bos);
        ids.extend(tokens.into_iter().take(self.room()));
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        ids
    }

    /// The text's tokens, [framed](Self::frame).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.frame(self.tokens(text)?))
    }
}
