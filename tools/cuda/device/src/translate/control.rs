//! Jumps, calls and ends.

use std::fmt::Write as _;

use super::writer::{Meaning, Writer, Written, c_name};
use crate::ptx::{Instruction, Operand, PtxError, Type};

impl Writer<'_> {
    pub fn control(&mut self, i: &Instruction) -> Written<Option<String>> {
        Ok(Some(match i.opcode[0].as_str() {
            "bra" => format!("goto {};", self.target(i.arg(0)?, i.line)?),
            "brx" => self.branch_table(i)?,
            "ret" => "goto end_;".into(),
            "exit" if self.function.kernel => "goto end_;".into(),
            "exit" => return Ok(None),
            "trap" | "brkpt" => format!("c->trap(c, {}, \"trap\", 0, 0);", i.line),
            "nanosleep" => ";".into(),
            _ => return self.call(i),
        }))
    }

    fn target(&self, operand: &Operand, line: u32) -> Written {
        match operand {
            Operand::Name(name) => self.label(name, line),
            _ => Err(PtxError::new(line, "a label is expected")),
        }
    }

    /// `brx.idx index, table;`
    fn branch_table(&mut self, i: &Instruction) -> Written {
        let index = self.read(i.arg(0)?, Type::U32)?;
        let Operand::Name(table) = i.arg(1)? else { return Err(PtxError::new(i.line, "a table is expected")) };
        let mut text = format!("switch ({index}) {{ ");
        for (at, name) in self.targets(table, i.line)?.iter().enumerate() {
            let _ = write!(text, "case {at}: goto {}; ", self.label(name, i.line)?);
        }
        Ok(text + "}")
    }

    /// `call (result), function, (arguments);`, with or without results and arguments.
    fn call(&mut self, i: &Instruction) -> Written<Option<String>> {
        let mut values = Vec::new();
        let mut name = None;
        for operand in &i.operands {
            match operand {
                Operand::List(names) => values.extend(names.iter()),
                Operand::Name(function) if name.is_none() => name = Some(function.as_str()),
                _ => return Ok(None),
            }
        }
        let Some(name) = name else { return Ok(None) };
        let mut arrays = Vec::new();
        for value in values {
            match self.meaning(value) {
                Some(Meaning::Array(array)) => arrays.push(array.clone()),
                _ => return Ok(None),
            }
        }
        if name == "__assertfail" {
            let value = |at: usize, c: &str| format!("*({c} *){}", arrays.get(at).map_or("0", String::as_str));
            let (text, file, line) = (value(0, "const char *"), value(1, "const char *"), value(2, "uint32_t"));
            return Ok(Some(format!("c->trap(c, {}, {text}, {file}, {line});", i.line)));
        }
        if !self.shared.called.iter().any(|called| called == name) {
            self.shared.called.push(name.to_owned());
        }
        let list: String = arrays.iter().map(|array| format!(", {array}")).collect();
        Ok(Some(format!("{}(c{list});", c_name(name))))
    }
}
