//! The parser of PTX.

use super::PtxError;
use super::token::{Placed, Token, tokens};
use super::tree::{Function, Instruction, Module, Operand, Param, Space, Statement, Type, Variable};

type Parsed<T> = Result<T, PtxError>;

/// Parses a PTX text.
pub fn parse(source: &str) -> Parsed<Module> {
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens: &tokens, at: 0, end: source.len() };
    let mut module = Module::default();
    while parser.at < tokens.len() {
        parser.item(&mut module)?;
    }
    Ok(module)
}

struct Parser<'a> {
    tokens: &'a [Placed<'a>],
    at: usize,
    end: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|p| p.token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |p| p.line)
    }

    fn start(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |p| p.start)
    }

    fn error<T>(&self, expected: &str) -> Parsed<T> {
        let found = self.peek().map_or("the end".to_owned(), |t| format!("{t:?}"));
        Err(PtxError::new(self.line(), format!("expected {expected}, found {found}")))
    }

    fn next(&mut self) -> Parsed<Token<'a>> {
        let Some(token) = self.peek() else { return self.error("more") };
        self.at += 1;
        Ok(token)
    }

    /// Takes a sign if it is next.
    fn takes(&mut self, sign: char) -> bool {
        let is_next = self.peek() == Some(Token::Sign(sign));
        self.at += usize::from(is_next);
        is_next
    }

    fn sign(&mut self, sign: char) -> Parsed<()> {
        if self.takes(sign) { Ok(()) } else { self.error(&format!("`{sign}`")) }
    }

    fn word(&mut self) -> Parsed<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.error("a name"),
        }
    }

    fn integer(&mut self) -> Parsed<u64> {
        match self.peek() {
            Some(Token::Integer(number)) => {
                self.at += 1;
                Ok(number)
            }
            _ => self.error("a number"),
        }
    }

    /// Skips to behind the next semicolon.
    fn skip_statement(&mut self) -> Parsed<()> {
        while self.next()? != Token::Sign(';') {}
        Ok(())
    }

    /// Takes `.word` if a dot is next.
    fn dotted(&mut self) -> Parsed<Option<&'a str>> {
        if !self.takes('.') {
            return Ok(None);
        }
        self.word().map(Some)
    }

    fn item(&mut self, module: &mut Module) -> Parsed<()> {
        let start = self.start();
        let mut directive = match self.dotted()? {
            Some(directive) => directive,
            None if self.takes(';') => return Ok(()),
            None => return self.error("a directive"),
        };
        while matches!(directive, "visible" | "extern" | "weak" | "common") {
            let Some(next) = self.dotted()? else { return self.error("a directive") };
            directive = next;
        }
        match directive {
            "version" | "target" | "address_size" => {
                // They end with their line.
                let line = self.tokens[self.at - 1].line;
                while self.at < self.tokens.len() && self.line() == line {
                    self.at += 1;
                }
            }
            "file" | "pragma" => {
                let line = self.tokens[self.at - 1].line;
                while self.at < self.tokens.len() && self.line() == line {
                    self.at += 1;
                }
            }
            "entry" => module.functions.push(self.function(true, start)?),
            "func" => module.functions.push(self.function(false, start)?),
            "global" | "const" | "shared" => module.variables.push(self.variable(directive)?),
            _ => return Err(PtxError::new(self.line(), format!("`.{directive}` is not supported here"))),
        }
        Ok(())
    }

    fn function(&mut self, kernel: bool, start: usize) -> Parsed<Function> {
        let line = self.line();
        let returns = if kernel { Vec::new() } else { self.params()? };
        let name = self.word()?.to_owned();
        let params = self.params()?;
        loop {
            // `.maxntid 256, 1, 1`, `.minnctapersm 2`, `.noreturn`
            match self.peek() {
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    let body = Some(self.statements()?);
                    let text = start..self.start();
                    return Ok(Function { name, kernel, returns, params, body, line, text });
                }
                Some(Token::Sign(';')) => {
                    self.at += 1;
                    let text = start..self.start();
                    return Ok(Function { name, kernel, returns, params, body: None, line, text });
                }
                _ => drop(self.next()?),
            }
        }
    }

    /// Parses `(.param .u64 a, .param .align 8 .b8 b[16])`, or nothing.
    fn params(&mut self) -> Parsed<Vec<Param>> {
        let mut params = Vec::new();
        let mut end = 0usize;
        if !self.takes('(') {
            return Ok(params);
        }
        while !self.takes(')') {
            if self.dotted()?.is_none_or(|d| d != "param" && d != "reg") {
                return self.error("`.param`");
            }
            let variable = self.declared(Space::Param)?;
            let offset = end.next_multiple_of(variable.align.max(1));
            end = offset + variable.bytes;
            params.push(Param { name: variable.name, bytes: variable.bytes, offset });
            self.takes(',');
        }
        Ok(params)
    }

    fn variable(&mut self, space: &str) -> Parsed<Variable> {
        let space = match space {
            "global" => Space::Global,
            "const" => Space::Const,
            "shared" => Space::Shared,
            "local" => Space::Local,
            _ => Space::Param,
        };
        let mut variable = self.declared(space)?;
        if self.takes('=') {
            variable.init = Some(self.initial(&variable)?);
        }
        self.sign(';')?;
        Ok(variable)
    }

    /// Parses `.align 4 .b8 name[24]`, without its initial value.
    fn declared(&mut self, space: Space) -> Parsed<Variable> {
        let line = self.line();
        let (mut align, mut ty, mut lanes) = (0, None, 1);
        while let Some(word) = self.dotted()? {
            match word {
                "align" => align = self.integer()? as usize,
                // `.ptr .global .align 1` of a parameter describes what it points to.
                "ptr" => {
                    while let Some(word) = self.dotted()? {
                        if word == "align" {
                            self.integer()?;
                        }
                    }
                }
                "v2" => lanes = 2,
                "v4" => lanes = 4,
                "attribute" | "unified" => return self.error("a plain variable"),
                _ => match Type::named(word) {
                    Some(named) => ty = Some(named),
                    None => return Err(PtxError::new(line, format!("unknown type `.{word}`"))),
                },
            }
        }
        let Some(ty) = ty else { return self.error("a type") };
        let name = self.word()?.to_owned();
        let mut bytes = ty.bytes() * lanes;
        while self.takes('[') {
            if self.takes(']') {
                bytes = 0;
            } else {
                bytes *= self.integer()? as usize;
                self.sign(']')?;
            }
        }
        let align = if align == 0 { ty.bytes() * lanes } else { align };
        Ok(Variable { name, space, ty, align, bytes, init: None, line })
    }

    fn initial(&mut self, variable: &Variable) -> Parsed<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut depth = 0;
        loop {
            let negative = self.takes('-');
            match self.next()? {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => depth -= 1,
                Token::Sign(',') => {}
                Token::Integer(number) => {
                    let number = if negative { number.wrapping_neg() } else { number };
                    bytes.extend_from_slice(&number.to_le_bytes()[..variable.ty.bytes()]);
                }
                Token::F32(bits) => bytes.extend_from_slice(&bits.to_le_bytes()),
                Token::F64(bits) => bytes.extend_from_slice(&bits.to_le_bytes()),
                _ => return Err(PtxError::new(variable.line, "only numbers are supported as initial values")),
            }
            if depth == 0 && self.peek() == Some(Token::Sign(';')) {
                bytes.resize(variable.bytes, 0);
                return Ok(bytes);
            }
        }
    }

    /// Parses statements up to the closing brace.
    fn statements(&mut self) -> Parsed<Vec<Statement>> {
        let mut found = Vec::new();
        loop {
            match self.peek() {
                Some(Token::Sign('}')) => {
                    self.at += 1;
                    return Ok(found);
                }
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    found.push(Statement::Block(self.statements()?));
                }
                Some(Token::Sign(';')) => self.at += 1,
                Some(Token::Sign('.')) => {
                    self.at += 1;
                    self.directive(&mut found)?;
                }
                Some(Token::Word(word)) if self.tokens.get(self.at + 1).map(|p| p.token) == Some(Token::Sign(':')) => {
                    self.at += 2;
                    found.push(self.label(word)?);
                }
                Some(Token::Word(_) | Token::Sign('@')) => found.push(Statement::Instruction(self.instruction()?)),
                _ => return self.error("a statement"),
            }
        }
    }

    fn label(&mut self, name: &str) -> Parsed<Statement> {
        let at = self.at;
        if let Some(directive) = self.dotted()? {
            if directive == "branchtargets" {
                let mut names = vec![self.word()?.to_owned()];
                while self.takes(',') {
                    names.push(self.word()?.to_owned());
                }
                self.sign(';')?;
                return Ok(Statement::Targets(name.to_owned(), names));
            }
            self.at = at;
        }
        Ok(Statement::Label(name.to_owned()))
    }

    fn directive(&mut self, found: &mut Vec<Statement>) -> Parsed<()> {
        let line = self.line();
        match self.word()? {
            "reg" => {
                let Some(ty) = self.dotted()? else { return self.error("a type") };
                let Some(ty) = Type::named(ty) else {
                    return Err(PtxError::new(line, format!("unknown type `.{ty}` of registers")));
                };
                let mut names = Vec::new();
                while !self.takes(';') {
                    let name = self.word()?.to_owned();
                    let count = if self.takes('<') { Some(self.integer()? as u32) } else { None };
                    if count.is_some() {
                        self.sign('>')?;
                    }
                    names.push((name, count));
                    self.takes(',');
                }
                found.push(Statement::Registers(ty, names));
            }
            space @ ("shared" | "local" | "param" | "const" | "global") => {
                found.push(Statement::Variable(self.variable(space)?));
            }
            "loc" => {
                while self.line() == line {
                    self.at += 1;
                }
            }
            "pragma" => self.skip_statement()?,
            other => return Err(PtxError::new(line, format!("`.{other}` is not supported"))),
        }
        Ok(())
    }

    fn instruction(&mut self) -> Parsed<Instruction> {
        let line = self.line();
        let guard = if self.takes('@') {
            let negated = self.takes('!');
            Some((self.word()?.to_owned(), negated))
        } else {
            None
        };
        let mut opcode = vec![self.word()?.to_owned()];
        while self.takes('.') {
            let mut part = match self.next()? {
                Token::Word(word) => word.to_owned(),
                Token::Integer(number) => number.to_string(),
                _ => return self.error("a part of the opcode"),
            };
            // `shared::cta`
            while self.peek() == Some(Token::Sign(':')) {
                self.at += 1;
                self.sign(':')?;
                part = format!("{part}::{}", self.word()?);
            }
            opcode.push(part);
        }
        let mut operands = Vec::new();
        while !self.takes(';') {
            operands.push(self.operand()?);
            if !self.takes(',') {
                self.sign(';')?;
                break;
            }
        }
        Ok(Instruction { line, guard, opcode, operands })
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let negative = self.takes('-');
        Ok(match self.next()? {
            Token::Integer(number) => Operand::Integer(if negative { -i128::from(number) } else { i128::from(number) }),
            Token::F32(bits) => Operand::F32(if negative { bits ^ (1 << 31) } else { bits }),
            Token::F64(bits) => Operand::F64(if negative { bits ^ (1 << 63) } else { bits }),
            Token::Sign('!') => Operand::Not(self.word()?.to_owned()),
            Token::Sign('{') => {
                let mut lanes = Vec::new();
                while !self.takes('}') {
                    lanes.push(self.operand()?);
                    self.takes(',');
                }
                Operand::Vector(lanes)
            }
            Token::Sign('(') => {
                let mut names = Vec::new();
                while !self.takes(')') {
                    names.push(self.word()?.to_owned());
                    self.takes(',');
                }
                Operand::List(names)
            }
            Token::Sign('[') => self.address()?,
            Token::Word(word) => self.named(word)?,
            _ => {
                self.at -= 1;
                return self.error("an operand");
            }
        })
    }

    fn address(&mut self) -> Parsed<Operand> {
        let base = match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                word.to_owned()
            }
            _ => String::new(),
        };
        let mut offset = 0i64;
        while !self.takes(']') {
            self.takes('+');
            let negative = self.takes('-');
            let number = self.integer()? as i64;
            offset += if negative { -number } else { number };
        }
        Ok(Operand::Address(base, offset))
    }

    fn named(&mut self, word: &str) -> Parsed<Operand> {
        if self.takes('|') {
            return Ok(Operand::Pair(word.to_owned(), self.word()?.to_owned()));
        }
        if self.peek() == Some(Token::Sign('.')) {
            // `%tid.x`
            self.at += 1;
            return Ok(Operand::Name(format!("{word}.{}", self.word()?)));
        }
        Ok(Operand::Name(word.to_owned()))
    }
}
