//! The rules that make mutants: each changes one operator, number, call, statement, arm or function body.

use std::ops::Range;

use syn::punctuated::Punctuated;
use syn::{BinOp, Expr, Lit, Pat, ReturnType, Token, Type};

use crate::mutant::{Kind, Mutant};
use crate::sites::{self, Visitor, binds, bytes};

/// Returns every mutant of a file; some do not compile.
pub fn mutants(source: &str, file: &syn::File) -> Vec<Mutant> {
    let mut finder = Finder { source, found: Vec::new() };
    sites::walk(file, &mut finder);
    finder.found
}

struct Finder<'s> {
    source: &'s str,
    found: Vec<Mutant>,
}

/// Operators and their replacements.
const OPERATORS: [(&str, &str); 18] = [
    ("+", "-"),
    ("-", "+"),
    ("*", "/"),
    ("/", "*"),
    ("%", "/"),
    ("<", "<="),
    ("<=", "<"),
    (">", ">="),
    (">=", ">"),
    ("==", "!="),
    ("!=", "=="),
    ("&&", "||"),
    ("||", "&&"),
    ("+=", "-="),
    ("-=", "+="),
    ("*=", "/="),
    ("/=", "*="),
    ("|=", "&="),
];

/// Methods and their replacements.
const METHODS: [(&str, &str); 20] = [
    ("min", "max"),
    ("max", "min"),
    ("any", "all"),
    ("all", "any"),
    ("first", "last"),
    ("last", "first"),
    ("is_some", "is_none"),
    ("is_none", "is_some"),
    ("is_ok", "is_err"),
    ("is_err", "is_ok"),
    ("is_some_and", "is_none_or"),
    ("is_none_or", "is_some_and"),
    ("floor", "ceil"),
    ("ceil", "floor"),
    ("sin", "cos"),
    ("cos", "sin"),
    ("and", "or"),
    ("or", "and"),
    ("starts_with", "ends_with"),
    ("saturating_sub", "saturating_add"),
];

/// Methods that return the type of their receiver; a rule removes such calls.
const REMOVABLE: [&str; 18] = [
    "abs",
    "sqrt",
    "sqr",
    "exp",
    "ln",
    "powi",
    "powf",
    "neg",
    "clamp",
    "min",
    "max",
    "trim",
    "round",
    "floor",
    "ceil",
    "contiguous",
    "detach",
    "help",
];

impl Finder<'_> {
    fn text(&self, span: Range<usize>) -> &str {
        &self.source[span]
    }

    fn add(&mut self, rule: &str, kind: Kind, span: Range<usize>, text: impl Into<String>) {
        let text = text.into();
        if self.source[span.clone()] != text {
            self.found.push(Mutant::by_rule(rule, self.source, kind, span, text));
        }
    }

    /// Returns `whole` with one part replaced.
    fn with(&self, whole: &Range<usize>, part: Range<usize>, text: &str) -> String {
        [self.text(whole.start..part.start), text, self.text(part.end..whole.end)].concat()
    }

    fn operator(&mut self, kind: Kind, span: Range<usize>, op: &BinOp) {
        let op = bytes(op);
        let other = OPERATORS.iter().find(|(from, _)| *from == self.text(op.clone())).map(|(_, to)| *to);
        if let Some(other) = other {
            let text = self.with(&span, op, other);
            self.add("operator", kind, span, text);
        }
    }

    fn negated(&mut self, condition: &Expr) {
        let comparison = matches!(condition, Expr::Binary(b) if matches!(b.op, BinOp::Eq(_) | BinOp::Ne(_)));
        let negation = matches!(condition, Expr::Unary(_));
        if !comparison && !negation && !binds(condition) && !matches!(condition, Expr::Path(_) | Expr::Field(_)) {
            let span = bytes(condition);
            let text = format!("!({})", self.text(span.clone()));
            self.add("negate", Kind::Expression, span, text);
        }
    }

    fn literal(&mut self, kind: Kind, literal: &syn::ExprLit) {
        let span = bytes(literal);
        let text = match &literal.lit {
            Lit::Bool(value) => (!value.value).to_string(),
            Lit::Int(value) => match value.base10_parse::<u64>() {
                Ok(0) => format!("1{}", value.suffix()),
                Ok(number) => format!("{}{}", number.saturating_add(1), value.suffix()),
                Err(_) => return,
            },
            Lit::Float(value) => match value.base10_parse::<f64>() {
                Ok(0.0) => format!("1.0{}", value.suffix()),
                Ok(number) => format!("{:?}{}", number * 1.5, value.suffix()),
                Err(_) => return,
            },
            _ => return,
        };
        self.add("literal", kind, span, text);
    }

    /// Swaps neighbouring arguments or fields; swaps of different types do not compile.
    fn neighbours(&mut self, rule: &str, kind: Kind, span: &Range<usize>, parts: &[Range<usize>]) {
        for pair in parts.windows(2) {
            let (left, right) = (pair[0].clone(), pair[1].clone());
            let between = self.text(left.end..right.start);
            let swapped = [self.text(right.clone()), between, self.text(left.clone())].concat();
            let text = self.with(span, left.start..right.end, &swapped);
            self.add(rule, kind, span.clone(), text);
        }
    }

    fn arguments(&mut self, kind: Kind, span: &Range<usize>, arguments: &Punctuated<Expr, Token![,]>) {
        let plain = |argument: &&Expr| !matches!(argument, Expr::Closure(_));
        let parts: Vec<_> = arguments.iter().filter(plain).map(bytes).collect();
        if parts.len() == arguments.len() {
            self.neighbours("arguments", kind, span, &parts);
        }
    }

    fn fields(&mut self, kind: Kind, literal: &syn::ExprStruct) {
        let span = bytes(literal);
        let parts: Vec<_> = literal.fields.iter().collect();
        for pair in parts.windows(2) {
            let (a, b) = (bytes(&pair[0].member), bytes(&pair[1].member));
            let (value, next) = (bytes(&pair[0].expr), bytes(&pair[1].expr));
            let swapped =
                format!("{}: {}, {}: {}", self.text(a.clone()), self.text(next), self.text(b), self.text(value));
            let text = self.with(&span, a.start..bytes(pair[1]).end, &swapped);
            self.add("fields", kind, span.clone(), text);
        }
    }

    fn method(&mut self, kind: Kind, call: &syn::ExprMethodCall) {
        let span = bytes(call);
        let name = call.method.to_string();
        for (_, other) in METHODS.iter().filter(|(from, _)| *from == name) {
            let text = self.with(&span, bytes(&call.method), other);
            self.add("method", kind, span.clone(), text);
        }
        if name == "is_empty" {
            let text = format!("!({})", self.text(span.clone()));
            self.add("method", kind, span.clone(), text);
        }
        if REMOVABLE.contains(&name.as_str()) {
            let text = self.text(bytes(&*call.receiver)).to_string();
            self.add("method", kind, span.clone(), text);
        }
        self.arguments(kind, &span, &call.args);
    }

    /// Gives each arm the value of the next one, if neither pattern binds a variable.
    fn arms(&mut self, arms: &[syn::Arm]) {
        for pair in arms.windows(2) {
            let free = pair.iter().all(|arm| arm.guard.is_none() && arm.comma.is_some() && binds_nothing(&arm.pat));
            let place = matches!(*pair[0].body, Expr::Path(_)) && matches!(*pair[1].body, Expr::Path(_));
            if free && (place || !matches!(*pair[0].body, Expr::Block(_))) {
                let text = self.text(bytes(&*pair[1].body)).to_string();
                self.add("arm", Kind::Expression, bytes(&*pair[0].body), text);
            }
        }
    }
}

/// Whether a pattern is a constant or a variant without fields.
fn binds_nothing(pattern: &Pat) -> bool {
    match pattern {
        Pat::Path(_) | Pat::Lit(_) | Pat::Range(_) => true,
        Pat::Ident(name) => name.subpat.is_none() && name.ident == "None",
        Pat::Or(or) => or.cases.iter().all(binds_nothing),
        Pat::Tuple(tuple) => tuple.elems.iter().all(binds_nothing),
        _ => false,
    }
}

impl Visitor for Finder<'_> {
    fn expression(&mut self, kind: Kind, expr: &Expr) {
        match expr {
            Expr::Binary(binary) => self.operator(kind, bytes(expr), &binary.op),
            Expr::Lit(literal) => self.literal(kind, literal),
            Expr::If(choice) => self.negated(&choice.cond),
            Expr::Struct(literal) => self.fields(kind, literal),
            Expr::Call(call) => self.arguments(kind, &bytes(expr), &call.args),
            Expr::MethodCall(call) => self.method(kind, call),
            Expr::Match(choice) => self.arms(&choice.arms),
            Expr::Unary(unary) => {
                let text = self.text(bytes(&*unary.expr)).to_string();
                self.add("unary", kind, bytes(expr), text);
            }
            _ => {}
        }
    }

    fn statement(&mut self, span: Range<usize>, expr: Option<&Expr>) {
        let inner = match expr {
            Some(Expr::Try(inner)) => Some(&*inner.expr),
            other => other,
        };
        let compound = matches!(inner, Some(Expr::Binary(_)));
        if compound || matches!(inner, Some(Expr::Call(_) | Expr::MethodCall(_) | Expr::Assign(_))) {
            self.add("statement", Kind::Statement, span, "");
        }
    }

    fn function(&mut self, signature: &syn::Signature, body: Range<usize>) {
        let ReturnType::Type(_, returned) = &signature.output else { return };
        let Type::Path(path) = &**returned else { return };
        let Some(last) = path.path.segments.last() else { return };
        let inner = self.text(bytes(&last.arguments)).split_whitespace().collect::<String>();
        let values: &[&str] = match last.ident.to_string().as_str() {
            "bool" => &["true", "false"],
            "Option" => &["None"],
            "Vec" => &["Vec::new()"],
            "String" => &["String::new()"],
            "Result" if inner == "<()>" => &["Ok(())"],
            "Result" if inner.starts_with("<bool") => &["Ok(true)", "Ok(false)"],
            "Result" if inner.starts_with("<Option") => &["Ok(None)"],
            "Result" if inner.starts_with("<Vec") => &["Ok(Vec::new())"],
            _ => &[],
        };
        values.iter().for_each(|value| self.add("body", Kind::Body, body.clone(), *value));
    }
}
