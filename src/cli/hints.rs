//! What an argument that lsregen does not know most likely means.

use clap::CommandFactory;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use lsregen_engine::nearest;
use lsregen_nodes::FOREIGN_NAMES;

use super::Arguments;

/// Flags of other programs, and what to write instead.
const FLAGS: &[(&str, &str)] = &[
    ("-o", "write `--output-dir DIR`; the name of a file is the `path` of its SaveImage"),
    ("--output", "write `--output-dir DIR`; the name of a file is the `path` of its SaveImage"),
    ("--out", "write `--output-dir DIR`; the name of a file is the `path` of its SaveImage"),
    ("--outdir", "write `--output-dir DIR`"),
    ("--output-directory", "write `--output-dir DIR`"),
    ("--dry-run", "`lsregen plan GRAPH` prints what a run would do, and `lsregen check GRAPH` its errors"),
    ("--batch-size", "write `--sweep seed=1,2,3,4` for several images"),
    ("--n-iter", "write `--sweep seed=1,2,3,4` for several images"),
    ("--cpu", "write `--device cpu`"),
    ("--cuda", "write `--device cuda:0`"),
    ("--gpu", "write `--device cuda:0`"),
    ("--fp16", "write `--dtype f16`"),
    ("--bf16", "write `--dtype bf16`"),
    ("--precision", "write `--dtype f32|bf16|f16`"),
    ("--lowvram", "write `--offload`"),
    ("--config", "name the graph without a flag: `lsregen run GRAPH`"),
];

/// Subcommands of other programs, and the verb here.
const VERBS: &[(&str, &str)] = &[
    ("generate", "run"),
    ("render", "run"),
    ("exec", "run"),
    ("execute", "run"),
    ("start", "run"),
    ("validate", "check"),
    ("lint", "check"),
    ("verify", "check"),
    ("dry-run", "plan"),
    ("download", "fetch"),
    ("pull", "fetch"),
    ("list", "models"),
    ("ls", "models"),
    ("info", "inspect"),
    ("draw", "graph"),
];

/// Verbs whose graph takes `--set`.
const WITH_PARAMS: &[&str] = &["run", "watch", "check", "plan", "graph"];

/// Replaces clap's tip in an error by a better one, if there is one. `verb` is the first argument.
pub fn improve(error: &mut clap::Error, verb: Option<&str>) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => {
            let similar = text(ContextKind::SuggestedArg);
            text(ContextKind::InvalidArg).and_then(|flag| flag_tip(&flag, similar.as_deref(), verb))
        }
        ErrorKind::InvalidSubcommand => {
            let has_similar = error.get(ContextKind::SuggestedSubcommand).is_some();
            text(ContextKind::InvalidSubcommand).and_then(|name| verb_tip(&name, has_similar))
        }
        _ => None,
    };
    let Some(tip) = tip else { return };
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::TrailingArg] {
        error.remove(kind);
    }
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
}

fn flag_tip(flag: &str, similar: Option<&str>, verb: Option<&str>) -> Option<String> {
    let flag = flag.split(['=', ' ']).next().unwrap_or_default();
    if let Some((_, tip)) = FLAGS.iter().find(|(name, _)| *name == flag.replace('_', "-")) {
        return Some((*tip).into());
    }
    let name = flag.strip_prefix("--").filter(|name| name.len() > 1)?.replace('-', "_");
    let is_misspelt = similar.is_some_and(|similar| nearest(flag, [similar]).is_some());
    let takes_params = verb.is_some_and(|verb| WITH_PARAMS.contains(&verb));
    let foreign = FOREIGN_NAMES.iter().find(|foreign| foreign.name == name);
    let name = foreign.and_then(|foreign| foreign.ours.first().copied()).unwrap_or(&name);
    let tip = || format!("to set the parameter `{name}` of the graph, write `--set {name}=VALUE`");
    (takes_params && !is_misspelt).then(tip)
}

/// `has_similar`: clap has found a similar verb.
fn verb_tip(name: &str, has_similar: bool) -> Option<String> {
    let is_graph = [".yaml", ".yml", ".png"].iter().any(|end| name.to_lowercase().ends_with(end));
    if is_graph {
        return Some(format!("to run the graph, write `lsregen run {name}`"));
    }
    let known = VERBS.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| ours.to_string());
    // Transposed letters are not similar to clap.
    let command = Arguments::command();
    let similar = || nearest(name, command.get_subcommands().map(clap::Command::get_name)).map(String::from);
    let verb = known.or_else(|| if has_similar { None } else { similar() })?;
    Some(format!("write `lsregen {verb}`"))
}
