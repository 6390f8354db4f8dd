//! Translates kernels from PTX to C.
//!
//! A kernel becomes one C file: its thread as a function, with the registers as variables and jumps as `goto`. Each access
//! to memory is checked by the prelude. Kernels whose threads wait for each other call the scheduler at that place.

mod writer;
mod operands;
mod arithmetic;
mod bits;
mod compare;
mod convert;
mod memory;
mod control;
mod warp;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ptx::{Function, Module, PtxError, Space};
use writer::Writer;

/// Raise this when the meaning of translated kernels changes without a change of their text.
pub const VERSION: u32 = 1;

const PRELUDE: &str = include_str!("prelude.h");

/// A translated kernel.
#[derive(Clone, Debug)]
pub struct Translated {
    pub name: String,
    /// The whole C file.
    pub c: String,
    /// Whether its threads wait for each other.
    pub collective: bool,
    /// Bytes of shared memory that the kernel has in every launch, as CUDA counts them.
    pub shared: usize,
    /// The same here, with the gaps between the variables.
    pub spread: usize,
    /// Where the shared memory of the launch starts.
    pub dynamic: usize,
    /// Bytes of local memory of a thread.
    pub local: usize,
    /// Sizes and places of the parameters.
    pub params: Vec<(usize, usize)>,
}

/// Parts of the C file that its functions share.
#[derive(Default)]
struct Shared {
    /// Offsets of variables in shared memory.
    offsets: BTreeMap<String, usize>,
    /// Bytes of these variables without the gaps that `place` leaves, and with them.
    bytes: usize,
    spread: usize,
    local: usize,
    collective: bool,
    /// Constants of the module that the kernel uses.
    constants: BTreeMap<String, String>,
    /// Functions that are called, and those written already.
    called: Vec<String>,
}

impl Shared {
    /// Places a variable at an offset that has the alignment of its declaration and no higher one. So the check of
    /// misaligned accesses finds those that rely on luck. The gaps count towards no limit of a launch.
    fn place(&mut self, name: &str, bytes: usize, align: usize) -> usize {
        let align = align.max(1);
        self.bytes = self.bytes.next_multiple_of(align) + bytes;
        let mut offset = self.spread.next_multiple_of(align);
        if offset.is_multiple_of(2 * align) {
            offset += align;
        }
        self.offsets.insert(name.to_owned(), offset);
        self.spread = offset + bytes;
        offset
    }
}

/// Translates one kernel of a module.
pub fn kernel(module: &Module, name: &str) -> Result<Translated, PtxError> {
    let found = module.functions.iter().find(|f| f.kernel && f.name == name && f.body.is_some());
    let kernel = found.ok_or_else(|| PtxError::new(0, format!("the module has no kernel `{name}`")))?;
    let mut shared = Shared::default();
    let mut bodies = vec![function(module, kernel, &mut shared)?];
    let mut at = 0;
    while let Some(name) = shared.called.get(at).cloned() {
        at += 1;
        let found = module.functions.iter().find(|f| f.name == name && f.body.is_some());
        let called = found.ok_or_else(|| PtxError::new(kernel.line, format!("calls `{name}`, which is missing")))?;
        bodies.push(function(module, called, &mut shared)?);
    }
    // CUDA aligns the shared memory of the launch to 16 bytes, whatever its declaration says.
    let dynamic = shared.spread.next_multiple_of(16);
    let mut c = format!("/* {name}, translator {VERSION} */\n{PRELUDE}\nenum {{ DYNAMIC = {dynamic} }};\n");
    for text in shared.constants.values() {
        c += text;
    }
    let addresses =
        shared.constants.keys().map(|name| format!("{{(uint64_t){0}, sizeof {0}}}, ", writer::c_name(name)));
    let _ = writeln!(
        c,
        "const struct {{ uint64_t at, bytes; }} cuda_device_constants[] = {{ {}{{0, 0}} }};",
        addresses.collect::<String>()
    );
    for function in bodies.iter().rev() {
        let _ = writeln!(c, "{};", function.head);
    }
    for function in bodies.iter().rev() {
        let _ = writeln!(c, "{} {{\n{}}}", function.head, function.body);
    }
    c += "void cuda_device_thread(Context *c) { kernel(c); }\n";
    if !shared.collective {
        c += BLOCK;
    }
    let params = kernel.params.iter().map(|p| (p.offset, p.bytes)).collect();
    Ok(Translated {
        name: name.to_owned(),
        c,
        collective: shared.collective,
        shared: shared.bytes,
        spread: shared.spread,
        dynamic,
        local: shared.local,
        params,
    })
}

/// All threads of a block, one after another.
const BLOCK: &str = "void cuda_device_block(Context *c) {
    uint32_t x, y, z, i = 0;
    for (z = 0; z < c->ntid[2]; z++) for (y = 0; y < c->ntid[1]; y++) for (x = 0; x < c->ntid[0]; x++) {
        c->tid[0] = x; c->tid[1] = y; c->tid[2] = z; c->thread = i++; c->copy_group = 1; c->last_copy = 0;
        kernel(c);
    }
}
";

/// The C text of a function.
struct Written {
    head: String,
    body: String,
}

fn function(module: &Module, function: &Function, shared: &mut Shared) -> Result<Written, PtxError> {
    let mut writer = Writer::new(module, function, shared);
    writer.statements(function.body.as_deref().unwrap_or_default())?;
    Ok(Written { head: head(function), body: writer.finish() })
}

fn head(function: &Function) -> String {
    if function.kernel {
        return "static void kernel(Context *c)".into();
    }
    let name = writer::c_name(&function.name);
    let values = function.returns.iter().chain(&function.params);
    let list: String = values.map(|p| format!(", uint8_t *{}", writer::c_name(&p.name))).collect();
    format!("static void {name}(Context *c{list})")
}

/// Returns why a variable of the module cannot be used by a kernel, or the C text of a constant.
fn constant(variable: &crate::ptx::Variable) -> Result<String, PtxError> {
    let bytes = match (&variable.init, variable.space) {
        (Some(bytes), Space::Global | Space::Const) => bytes,
        _ => {
            let text = format!("`{}`: variables in memory without an initial value are not supported", variable.name);
            return Err(PtxError::new(variable.line, text));
        }
    };
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let align = variable.align.max(16);
    let name = writer::c_name(&variable.name);
    Ok(format!(
        "static const uint8_t {name}[{}] __attribute__((aligned({align}))) = {{{}}};\n",
        bytes.len(),
        numbers.join(",")
    ))
}

#[cfg(test)]
mod tests {
    use super::Shared;

    #[test]
    fn variables_have_the_alignment_of_their_declaration_and_no_higher_one() {
        let mut shared = Shared::default();
        for (i, (bytes, align)) in
            [(3, 1), (512, 4), (2, 2), (64, 16), (40, 8), (1, 128), (7, 0)].into_iter().enumerate()
        {
            let before = shared.spread;
            let offset = shared.place(&i.to_string(), bytes, align);
            assert!(offset >= before && offset.trailing_zeros() == align.max(1).trailing_zeros(), "{i}: {offset}");
        }
        // What CUDA counts: 3, 4..516, 516..518, 528..592, 592..632, 640, 641..648.
        assert_eq!(shared.bytes, 648);
    }
}
