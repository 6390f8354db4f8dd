//! Finds the parts of a file that can be put behind a switch at run time.

use std::collections::BTreeSet;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, Stmt};

use crate::mutant::Kind;

/// Receives each site of a file, outermost first.
pub trait Visitor {
    /// An expression that is evaluated at run time. Place expressions (`x`, `x.y`, `x[i]`, `*x`) and conditions with
    /// `let` are not sites: a switch would move the place, or the binding would not be visible.
    fn expression(&mut self, kind: Kind, expr: &Expr);

    /// A statement that ends in a semicolon and binds nothing.
    fn statement(&mut self, span: Range<usize>, expr: Option<&Expr>);

    /// A function, and the bytes of its body.
    fn function(&mut self, signature: &syn::Signature, body: Range<usize>);
}

/// Walks a file.
pub fn walk(file: &syn::File, visitor: &mut dyn Visitor) {
    Walker { visitor, ends: BTreeSet::new(), fixed: BTreeSet::new() }.visit_file(file);
}

pub fn bytes(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

/// Whether a condition binds variables with `let`.
pub fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        Expr::Paren(inner) => binds(&inner.expr),
        _ => false,
    }
}

struct Walker<'v> {
    visitor: &'v mut dyn Visitor,
    /// The starts of expressions that are statements without a semicolon.
    ends: BTreeSet<(usize, usize)>,
    /// The starts of blocks that must remain blocks: after `else`, and in arms without a comma.
    fixed: BTreeSet<(usize, usize)>,
}

fn key(node: &impl Spanned) -> (usize, usize) {
    let span = bytes(node);
    (span.start, span.end)
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().contains("test"),
        meta => meta.path().is_ident("test"),
    })
}

impl Walker<'_> {
    fn function(&mut self, attributes: &[Attribute], signature: &syn::Signature, block: &Block) {
        if signature.constness.is_some() || is_for_tests(attributes) {
            return;
        }
        let span = bytes(block);
        self.visitor.function(signature, span.start + 1..span.end - 1);
        self.visit_block(block);
    }
}

impl<'ast> Visit<'ast> for Walker<'_> {
    // Skips what the compiler evaluates, and what is not code.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.attrs, &item.sig, block);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        match statement {
            Stmt::Expr(expr, None) => {
                self.ends.insert(key(expr));
            }
            Stmt::Expr(expr, Some(_)) => self.visitor.statement(bytes(statement), Some(expr)),
            Stmt::Macro(call) if call.semi_token.is_some() => {
                self.visitor.statement(bytes(statement), None);
                self.visit_macro(&call.mac);
            }
            _ => {}
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr_if(&mut self, choice: &'ast syn::ExprIf) {
        if let Some((_, otherwise)) = &choice.else_branch {
            self.fixed.insert(key(otherwise));
        }
        visit::visit_expr_if(self, choice);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let Some((_, otherwise)) = local.init.as_ref().and_then(|init| init.diverge.as_ref()) {
            self.fixed.insert(key(otherwise));
        }
        visit::visit_local(self, local);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let block = matches!(
            *arm.body,
            Expr::Block(_)
                | Expr::If(_)
                | Expr::Match(_)
                | Expr::Loop(_)
                | Expr::While(_)
                | Expr::ForLoop(_)
                | Expr::Unsafe(_)
        );
        if block && arm.comma.is_none() {
            self.fixed.insert(key(&arm.body));
        }
        visit::visit_arm(self, arm);
    }

    /// The arguments of macros whose arguments are expressions.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        if !matches!(name.as_str(), "ensure" | "vec") {
            return;
        }
        let list = syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated;
        let Ok(arguments) = call.parse_body_with(list) else { return };
        let kept = if name == "ensure" { 1 } else { arguments.len() };
        arguments.iter().take(kept).for_each(|argument| {
            Walker { visitor: &mut *self.visitor, ends: BTreeSet::new(), fixed: BTreeSet::new() }.visit_expr(argument)
        });
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        let place = match expr {
            Expr::Path(_) | Expr::Field(_) | Expr::Index(_) | Expr::Infer(_) | Expr::Let(_) | Expr::Verbatim(_) => true,
            Expr::Unary(unary) => matches!(unary.op, syn::UnOp::Deref(_)),
            other => binds(other),
        };
        if !place && !self.fixed.contains(&key(expr)) {
            let kind = if self.ends.contains(&key(expr)) { Kind::Statement } else { Kind::Expression };
            self.visitor.expression(kind, expr);
        }
        visit::visit_expr(self, expr);
    }
}
