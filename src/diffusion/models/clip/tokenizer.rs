//! CLIP's tokenizer, from `vocab.json` and `merges.txt` or from the equivalent `tokenizer.json`. Pads and truncates as
//! `tokenizer_config.json` says.
//!
//! The byte-pair encoding is that of the `tokenizers` crate. This module has CLIP's rules: NFC, one space for any white
//! space, lower case, the split into words, and `</w>` at the end of a word.

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

/// The required files of a tokenizer's folder.
pub const NEEDED: [&str; 2] = ["vocab.json", "merges.txt"];

/// The files of a tokenizer's folder that are read if they exist.
pub const FILES: [&str; 4] = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];

/// One file in place of the required ones.
const JOINED: &str = "tokenizer.json";

fn inside(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.into() } else { format!("{folder}/{name}") }
}

/// The files that are read of the tokenizer in `folder` of a model (`""` for its root); none if it has no tokenizer.
pub fn files_of(files: &ModelFiles, folder: &str) -> Vec<String> {
    let has = |name: &&str| files.has(&inside(folder, name));
    let joined = !NEEDED.iter().all(has);
    let settings = FILES.iter().filter(|name| !NEEDED.contains(*name));
    let main = if joined { [JOINED].as_slice() } else { &NEEDED };
    if joined && !has(&JOINED) {
        return vec![];
    }
    main.iter().chain(settings).filter(|name| has(name)).map(|name| inside(folder, name)).collect()
}

/// The part of `tokenizer.json` that is read; the rest is CLIP's rules.
#[derive(Deserialize)]
struct Joined {
    model: JoinedModel,
}

#[derive(Deserialize)]
struct JoinedModel {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// A merge: one text in older files, a pair in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

/// A special token in a configuration: its text, or an object that contains it.
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

/// Splits `a b` into its two tokens.
fn merge_of(line: &str, label: &str) -> Result<(String, String)> {
    match line.split_once(' ') {
        Some((a, b)) => Ok((a.to_string(), b.to_string())),
        None => Err(Error::Config(format!("{label}: `{line}` is not a merge of two tokens"))),
    }
}

/// Converts texts to token ids of one length.
pub struct ClipTokenizer {
    inner: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
}

impl ClipTokenizer {
    /// Loads the tokenizer in `folder` of a model. `longest` is the maximum number of tokens of the text encoder.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn load(files: &ModelFiles, folder: &str, longest: usize) -> Result<Self> {
        let path = |name: &str| inside(folder, name);
        let mut config: Config = match files.has(&path("tokenizer_config.json")) {
            true => files.json(&path("tokenizer_config.json"))?,
            false => Config::default(),
        };
        if config.pad_token.is_none() && files.has(&path("special_tokens_map.json")) {
            config.pad_token = files.json::<Config>(&path("special_tokens_map.json"))?.pad_token;
        }
        let joined = path(JOINED);
        let (vocab, merges) = match files.has(&path("vocab.json")) || !files.has(&joined) {
            true => (files.json(&path("vocab.json"))?, Self::merges(files, &path("merges.txt"))?),
            false => {
                let JoinedModel { vocab, merges } = files.json::<Joined>(&joined)?.model;
                let label = files.label(&joined);
                let pair = |merge| match merge {
                    Merge::Pair(a, b) => Ok((a, b)),
                    Merge::Text(text) => merge_of(&text, &label),
                };
                (vocab, merges.into_iter().map(pair).collect::<Result<_>>()?)
            }
        };
        let name = |s: &Option<Special>, default: &str| s.as_ref().map_or(default, Special::text).to_string();
        let special = [&config.bos_token, &config.eos_token, &config.unk_token, &config.pad_token];
        let defaults = ["<|startoftext|>", END, END, END];
        let special = std::array::from_fn(|i| name(special[i], defaults[i]));
        let max_length = config.model_max_length.map_or(longest, |m| longest.min(m.max(0.0) as usize));
        Self::build(vocab, merges, special, max_length, &files.label(folder))
    }

    fn merges(files: &ModelFiles, path: &str) -> Result<Vec<(String, String)>> {
        let (text, label) = (files.read(path)?, files.label(path));
        let text = std::str::from_utf8(&text).map_err(|e| Error::Config(format!("{label}: {e}")))?;
        let lines = text.lines().filter(|l| !l.starts_with("#version") && !l.trim().is_empty());
        lines.map(|l| merge_of(l, &label)).collect()
    }

    /// CLIP's own tokenizer, which is built in, with the padding token `pad`, for checkpoints without a tokenizer.
    ///
    /// # Errors
    /// If `pad` is not a token, or `longest` is less than 3.
    pub fn clip(pad: &str, longest: usize) -> Result<Self> {
        const MERGES: &str = include_str!("../../../../models/clip/merges.txt");
        let merges = MERGES.lines().skip(1).filter_map(|l| l.split_once(' '));
        let merges: Vec<(String, String)> = merges.map(|(a, b)| (a.into(), b.into())).collect();
        // The vocabulary: a symbol for each byte, printable ones first; the same at the end of a word; the merged tokens.
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

    /// Builds the tokenizer. The special tokens are begin and end of text, unknown token and padding.
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

    /// The size of the vocabulary: one more than the greatest id.
    pub fn size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The number of tokens of every encoded text.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The number of tokens that fit between begin and end of text.
    pub fn room(&self) -> usize {
        self.max_length - 2
    }

    /// Tokenizes a text of any length, without begin and end of text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| Error::input(format!("tokenizer: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Frames tokens: begin of text, the tokens (truncated), end of text, padding. Always [`Self::max_length`] ids.
    pub fn frame(&self, tokens: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.max_length);
        ids.push(self.bos);
        ids.extend(tokens.into_iter().take(self.room()));
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        ids
    }

    /// Tokenizes and [frames](Self::frame) a text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.frame(self.tokens(text)?))
    }
}
