//! CLIP's tokenizer, from `vocab.json` and `merges.txt` or from the equivalent `tokenizer.json`. Pads and truncates as
//! `tokenizer_config.json` says, and finds added tokens as transformers does.
//!
//! The byte-pair encoding is that of the `tokenizers` crate. This module has CLIP's rules: NFC, one space for any white
//! space, lower case, the split into words, and `</w>` at the end of a word.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    SplitDelimiterBehavior, Tokenizer,
};

use crate::weights::ModelFiles;
use crate::{Error, Result};

const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

const START: &str = "<|startoftext|>";

const END: &str = "<|endoftext|>";

/// The vocabulary and the merges in two files.
const TWO_FILES: [&str; 2] = ["vocab.json", "merges.txt"];

/// One file in place of both; transformers 5 saves no other.
const ONE_FILE: &str = "tokenizer.json";

/// The files beside them that are read if they exist.
const SETTINGS: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

fn normalizers() -> Normalizers {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").expect("a regular expression");
    Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])
}

fn splitter() -> Split {
    Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true).expect("a regular expression")
}

/// Splits a text into the words that CLIP's tokenizer encodes one by one: letters, single digits, and punctuation.
pub fn words(text: &str) -> Vec<String> {
    static RULES: LazyLock<(Normalizers, Split)> = LazyLock::new(|| (normalizers(), splitter()));
    let (normalizers, splitter) = &*RULES;
    let mut text = NormalizedString::from(text);
    normalizers.normalize(&mut text).expect("these normalizers have no errors");
    let mut text = PreTokenizedString::from(text);
    splitter.pre_tokenize(&mut text).expect("this split has no errors");
    let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
    splits.into_iter().map(|(word, ..)| word.to_string()).collect()
}

fn inside(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.into() } else { format!("{folder}/{name}") }
}

/// The files that are read of the tokenizer in `folder` of a model (`""` for its root); none if it has no tokenizer.
pub fn files_of(files: &ModelFiles, folder: &str) -> Vec<String> {
    let has = |name: &&str| files.has(&inside(folder, name));
    let main = match TWO_FILES.iter().all(has) {
        true => TWO_FILES.as_slice(),
        false if has(&ONE_FILE) => &[ONE_FILE],
        false => return vec![],
    };
    main.iter().chain(&SETTINGS).filter(|name| has(name)).map(|name| inside(folder, name)).collect()
}

/// The part of `tokenizer.json` that is read; the rest is CLIP's rules.
#[derive(Deserialize)]
struct Joined {
    model: JoinedModel,
    #[serde(default)]
    added_tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct JoinedModel {
    vocab: Vocab,
    /// One text for each in older files, a pair in newer ones.
    merges: Vec<Vec<String>>,
}

type Vocab = HashMap<String, u32>;

/// A token that is found in texts before the merges apply. Files have its text alone, or an object.
#[derive(Clone, Deserialize)]
struct Token {
    content: String,
    id: Option<u32>,
    /// Whether it is found in the text after normalisation: in any capitals.
    normalized: Option<bool>,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

impl Token {
    fn new(content: &str) -> Token {
        Token { content: content.into(), id: None, normalized: None, lstrip: false, rstrip: false, single_word: false }
    }
}

#[derive(Default, Deserialize)]
struct Config {
    model_max_length: Option<f64>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    pad_token: Option<Token>,
    /// Tokens by id.
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, Token>,
}

/// The place of the padding among the special tokens.
const PAD: usize = 3;

/// What a tokenizer is built from.
struct Parts {
    vocab: Vocab,
    merges: Vec<(String, String)>,
    /// Begin and end of text, unknown token and padding.
    special: [Token; 4],
    /// Further tokens. They take precedence over `special`.
    added: Vec<Token>,
    /// Whether the padding token is found in texts too. transformers does so, OpenCLIP does not.
    finds_padding: bool,
}

/// Splits `a b` into its two tokens.
fn merge_of(line: &str, label: &str) -> Result<(String, String)> {
    match line.split_once(' ') {
        Some((a, b)) => Ok((a.to_string(), b.to_string())),
        None => Err(Error::Config(format!("{label}: `{line:.60}` is not a merge of two tokens"))),
    }
}

/// The tokens that are found in texts before the merges apply, each once. As in transformers, special tokens and added ones
/// are found in any capitals unless the file says otherwise, and the padding token only as it is written.
fn found_whole(added: Vec<Token>, special: &[Token]) -> Vec<AddedToken> {
    let mut seen = HashSet::new();
    let special = special.iter().enumerate().map(|(i, token)| {
        let normalized = token.normalized.unwrap_or(i != PAD);
        Token { normalized: Some(normalized), ..token.clone() }
    });
    let tokens = added.into_iter().chain(special).filter(|token| seen.insert(token.content.clone()));
    let found = tokens.map(|token| {
        AddedToken::from(token.content, true)
            .normalized(token.normalized.unwrap_or(true))
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .single_word(token.single_word)
    });
    found.collect()
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
    /// The least tokens of a text: begin, one token, end.
    pub const SHORTEST: usize = 3;

    /// Loads the tokenizer in `folder` of a model. `longest` is the maximum number of tokens of the text encoder.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn load(files: &ModelFiles, folder: &str, longest: usize) -> Result<Self> {
        let path = |name: &str| inside(folder, name);
        if files_of(files, folder).is_empty() {
            let missing = TWO_FILES.iter().find(|name| !files.has(&path(name))).unwrap_or(&ONE_FILE);
            return Err(Error::Config(format!(
                "{}: no such file; a tokenizer is in vocab.json and merges.txt, or in tokenizer.json",
                files.label(&path(missing))
            )));
        }
        let json = |name: &str| files.has(&path(name)).then(|| files.json(&path(name))).transpose();
        let config = |name: &str| -> Result<Config> {
            json(name)?.map_or_else(|| Ok(Config::default()), |config| config.decode())
        };
        let (config, map) = (config("tokenizer_config.json")?, config("special_tokens_map.json")?);
        let (vocab, merges, mut added) = match TWO_FILES.iter().all(|name| files.has(&path(name))) {
            true => {
                let vocab = files.json(&path("vocab.json"))?.decode()?;
                (vocab, Self::merges(files, &path("merges.txt"))?, vec![])
            }
            false => {
                let label = files.label(&path(ONE_FILE));
                let Joined { model: JoinedModel { vocab, merges }, added_tokens } =
                    files.json(&path(ONE_FILE))?.decode()?;
                let pair = |merge: Vec<String>| match <[String; 2]>::try_from(merge) {
                    Ok([a, b]) => Ok((a, b)),
                    Err(merge) => merge_of(&merge.concat(), &label),
                };
                (vocab, merges.into_iter().map(pair).collect::<Result<_>>()?, added_tokens)
            }
        };
        let by_id = config.added_tokens_decoder.into_iter();
        added.extend(by_id.map(|(id, token)| Token { id: id.parse().ok().or(token.id), ..token }));
        if let Some(json) = json("added_tokens.json")? {
            let ids: BTreeMap<String, u32> = json.decode()?;
            added.extend(ids.into_iter().map(|(token, id)| Token { id: Some(id), ..Token::new(&token) }));
        }
        let special = [
            config.bos_token.or(map.bos_token).unwrap_or_else(|| Token::new(START)),
            config.eos_token.or(map.eos_token).unwrap_or_else(|| Token::new(END)),
            config.unk_token.or(map.unk_token).unwrap_or_else(|| Token::new(END)),
            config.pad_token.or(map.pad_token).unwrap_or_else(|| Token::new(END)),
        ];
        let max_length = config.model_max_length.map_or(longest, |m| longest.min(m.max(0.0) as usize));
        Self::build(Parts { vocab, merges, special, added, finds_padding: true }, max_length, &files.label(folder))
    }

    fn merges(files: &ModelFiles, path: &str) -> Result<Vec<(String, String)>> {
        let (text, label) = (files.read(path)?, files.label(path));
        let text = std::str::from_utf8(&text).map_err(|e| Error::Config(format!("{label}: {e}")))?;
        let lines = text.trim_start_matches('\u{feff}').lines();
        let lines = lines.filter(|l| !l.starts_with("#version") && !l.trim().is_empty());
        lines.map(|l| merge_of(l, &label)).collect()
    }

    /// CLIP's own tokenizer, which is built in, with the padding token `pad`, for checkpoints without a tokenizer. It equals
    /// OpenCLIP's: the padding token is an ordinary one in texts.
    ///
    /// # Errors
    /// If `pad` is not a token, or `longest` is less than [`Self::SHORTEST`].
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
        let tokens = tokens.chain([START, END].map(String::from));
        let vocab = tokens.zip(0..).collect();
        let special = [START, END, END, pad].map(Token::new);
        let parts = Parts { vocab, merges, special, added: vec![], finds_padding: false };
        Self::build(parts, longest, "CLIP's tokenizer")
    }

    fn build(parts: Parts, max_length: usize, label: &str) -> Result<Self> {
        let Parts { mut vocab, merges, special, added, finds_padding } = parts;
        for token in &added {
            let Some(id) = token.id else { continue };
            let known = *vocab.entry(token.content.clone()).or_insert(id);
            if known != id {
                return Err(Error::Config(format!(
                    "{label}: the token `{:.60}` has the number {known} in its vocabulary, but {id} among its added tokens",
                    token.content
                )));
            }
        }
        let id = |token: &Token| {
            let id = vocab.get(&token.content).copied();
            id.ok_or_else(|| Error::Config(format!("{label}: its vocabulary has no token `{:.60}`", token.content)))
        };
        let ids = special.iter().map(id).collect::<Result<Vec<_>>>()?;
        let (bos, eos, pad) = (ids[0], ids[1], ids[PAD]);

        let broken = |e: tokenizers::Error| Error::Config(format!("{label}: {:.200}", e.to_string()));
        let bpe = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .unk_token(special[2].content.clone())
            .end_of_word_suffix("</w>".into())
            .build()
            .map_err(broken)?;
        let mut inner = Tokenizer::new(bpe);
        inner.with_normalizer(Some(normalizers())).map_err(broken)?;
        inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            PreTokenizerWrapper::Split(splitter()),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ])));
        let found = if finds_padding { special.as_slice() } else { &special[..PAD] };
        inner.add_special_tokens(found_whole(added, found)).map_err(broken)?;
        if max_length < Self::SHORTEST {
            return Err(Error::Config(format!(
                "{label}: texts of {max_length} tokens have no room for a token between begin and end"
            )));
        }
        Ok(ClipTokenizer { inner, bos, eos, pad, max_length })
    }

    /// Checks that a text encoder with this vocabulary has all tokens.
    ///
    /// # Errors
    /// If it has fewer.
    pub fn check_vocab_size(&self, vocab_size: usize, label: &str) -> Result<()> {
        if self.size() <= vocab_size {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{label}: the tokenizer has {} tokens, but its text encoder has {vocab_size}; does it belong to another model?",
            self.size()
        )))
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
