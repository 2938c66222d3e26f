//! A JSON document: fields, and one array of things of a kind.

use serde_json::{Map, Value};
use std::io::{self, Write};

/// What a command answers, for scripts.
pub(super) struct Document {
    /// `schema`, `complete`, `target`, and what else stands before the array.
    head: Map<String, Value>,
    /// The array's name.
    name: &'static str,
    /// Its elements.
    elements: Vec<Value>,
}

impl Document {
    /// A document of the schema `inspector.SCHEMA/1` whose array is still empty.
    pub(super) fn new(schema: &str, complete: bool, target: &str, name: &'static str) -> Self {
        let mut head = Map::new();
        head.insert("schema".to_owned(), format!("inspector.{schema}/1").into());
        head.insert("complete".to_owned(), complete.into());
        head.insert("target".to_owned(), target.into());
        Self {
            head,
            name,
            elements: Vec::new(),
        }
    }

    /// Whether everything that was asked for is known.
    pub(super) fn is_complete(&self) -> bool {
        self.head.get("complete") == Some(&Value::Bool(true))
    }

    /// Adds a field before the array.
    pub(super) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.head.insert(name.to_owned(), value.into());
        self
    }

    /// Adds all fields of an object before the array.
    pub(super) fn fields(mut self, object: Value) -> Self {
        if let Value::Object(fields) = object {
            self.head.extend(fields);
        }
        self
    }

    /// Fills the array.
    pub(super) fn elements(mut self, elements: impl IntoIterator<Item = Value>) -> Self {
        self.elements = elements.into_iter().collect();
        self
    }

    /// Writes one document, each field and each element on a line of its own.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut before = "{";
        for (name, value) in &self.head {
            write!(out, "{before}{}:{value}", Value::from(name.as_str()))?;
            before = ",\n ";
        }
        write!(out, "{before}\"{}\":[", self.name)?;
        for (at, element) in self.elements.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(out, "{comma}\n  {element}")?;
        }
        writeln!(out, "]}}")
    }

    /// Writes the document without its array on one line, then one element a line.
    pub(super) fn write_jsonl(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &self.head)?;
        writeln!(out)?;
        self.elements
            .iter()
            .try_for_each(|element| writeln!(out, "{element}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(
        write: impl Fn(&Document, &mut dyn Write) -> io::Result<()>,
        elements: Vec<Value>,
    ) -> String {
        let document = Document::new("list", true, "a \"name\"", "entries")
            .field("hypervisor", json!({"kind": "hyp", "release": null}))
            .elements(elements);
        let mut out = Vec::new();
        write(&document, &mut out).expect("memory takes everything");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn json_is_one_document_in_the_order_given() {
        let text = text(
            Document::write_json,
            vec![json!({"ia": "0x0"}), json!({"ia": "0x1000"})],
        );
        assert_eq!(
            text,
            "{\"schema\":\"inspector.list/1\",\n \"complete\":true,\n \"target\":\"a \\\"name\\\"\",\n \
             \"hypervisor\":{\"kind\":\"hyp\",\"release\":null},\n \"entries\":[\n  \
             {\"ia\":\"0x0\"},\n  {\"ia\":\"0x1000\"}]}\n"
        );
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }

    #[test]
    fn an_empty_array_is_still_there() {
        let text = text(Document::write_json, Vec::new());
        let value: Value = serde_json::from_str(&text).expect("sound JSON");
        assert_eq!(value["entries"], json!([]));
    }

    #[test]
    fn jsonl_is_the_head_and_then_the_elements() {
        let text = text(
            Document::write_jsonl,
            vec![json!({"ia": "0x0"}), json!({"ia": "0x1000"})],
        );
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("sound JSON"))
            .collect();
        assert_eq!(lines[0]["schema"], "inspector.list/1");
        assert_eq!(lines[0].get("entries"), None);
        assert_eq!(lines[1..], [json!({"ia": "0x0"}), json!({"ia": "0x1000"})]);
    }
}
