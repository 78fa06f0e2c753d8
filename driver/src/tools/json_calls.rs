//! Calls as JSON objects, read character by character.

use super::parser::{Calls, Flow, is_name};
use serde_json::Value;

/// Reads objects with `name` and `arguments` or `parameters`, and gives the arguments as they come.
#[derive(Debug)]
pub(super) struct JsonCalls {
    /// The functions that there are, if only their names make an object a call.
    known: Option<Vec<String>>,
    object: Option<Object>,
}

#[derive(Debug, Default)]
struct Object {
    at: At,
    name: Option<String>,
    /// Arguments that came before the name.
    early: Option<String>,
    /// The object under `function`, where the call is wrapped.
    wrapped: Option<String>,
    /// Whether the call has begun.
    begun: bool,
    /// Whether its arguments were given out.
    told: bool,
}

#[derive(Debug, Default)]
enum At {
    /// Before a key or the end.
    #[default]
    Between,
    Key(Scan, String),
    Colon(String),
    Value(Role, Scan, String),
    /// Arguments of a call that has begun: all of them are given out.
    Stream(Scan),
    /// The object itself is the arguments of a call that has begun.
    Arguments(Scan),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Name,
    Arguments,
    Wrapped,
    Other,
}

/// Finds the end of a JSON value.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    string: bool,
    escape: bool,
    begun: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The character belongs to the value, which goes on.
    Inside,
    /// The character is the value's last.
    Last,
    /// The value ended before the character.
    Past,
}

impl Scan {
    fn take(&mut self, c: char) -> Seen {
        if self.string {
            self.string = self.escape || c != '"';
            self.escape = !self.escape && c == '\\';
            return if !self.string && self.depth == 0 { Seen::Last } else { Seen::Inside };
        }
        match c {
            '"' if self.begun && self.depth == 0 => return Seen::Past,
            '"' => self.string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' | ',' if self.depth == 0 => return Seen::Past,
            '}' | ']' => {
                self.depth -= 1;
                return if self.depth == 0 { Seen::Last } else { Seen::Inside };
            }
            _ if c.is_whitespace() && self.depth == 0 && self.begun => return Seen::Past,
            _ => {}
        }
        self.begun = true;
        Seen::Inside
    }
}

impl JsonCalls {
    /// What may stand between objects, or begin one.
    pub(super) const SIGNS: [char; 5] = ['{', '[', ']', ',', ';'];

    pub(super) fn new(known: Option<Vec<String>>) -> Self {
        Self { known, object: None }
    }
    /// Reads one object, the arguments of a call that has begun.
    pub(super) fn arguments() -> Self {
        let object = Object { at: At::Arguments(Scan::default()), begun: true, ..Object::default() };
        Self { known: None, object: Some(object) }
    }
    /// Whether an object has begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        self.object.is_some()
    }
    /// Whether a character may stand between objects, or begin one.
    pub(super) fn takes(&self, c: char) -> bool {
        Self::SIGNS.contains(&c)
    }
    /// Takes such a character.
    pub(super) fn begin(&mut self, c: char) {
        if c == '{' {
            self.object = Some(Object::default());
        }
    }

    /// Reads an object as far as there is text.
    pub(super) fn read(&mut self, pending: &mut String, out: &mut Calls) -> Flow {
        let text = std::mem::take(pending);
        for (at, c) in text.char_indices() {
            let Some(object) = &mut self.object else {
                *pending = text[at..].to_owned();
                return Flow::Go;
            };
            match object.take(c, self.known.as_deref(), out) {
                Some(true) => self.object = None,
                Some(false) => {}
                None => {
                    *pending = text[at..].to_owned();
                    return Flow::Fail;
                }
            }
        }
        if self.object.is_some() { Flow::Wait } else { Flow::Go }
    }
}

impl Object {
    /// Takes a character: whether the object has ended, or none if it is no call.
    fn take(&mut self, c: char, known: Option<&[String]>, out: &mut Calls) -> Option<bool> {
        match &mut self.at {
            At::Arguments(scan) => {
                let seen = scan.take(c);
                out.arguments(c.encode_utf8(&mut [0; 4]));
                return Some(seen == Seen::Last);
            }
            At::Stream(scan) => {
                let seen = scan.take(c);
                out.arguments(c.encode_utf8(&mut [0; 4]));
                if seen == Seen::Last {
                    self.at = At::Between;
                }
            }
            At::Between => match c {
                '"' => {
                    let mut scan = Scan::default();
                    scan.take(c);
                    self.at = At::Key(scan, "\"".to_owned());
                }
                '}' => return self.end(known, out).then_some(true),
                ',' => {}
                _ if c.is_whitespace() => {}
                _ => return None,
            },
            At::Key(scan, text) => {
                text.push(c);
                if scan.take(c) == Seen::Last {
                    let key = serde_json::from_str(text).ok()?;
                    self.at = At::Colon(key);
                }
            }
            At::Colon(key) => match c {
                ':' => {
                    let role = Role::of(key);
                    // An object that stands alone is a call only if it begins like one.
                    if known.is_some() && role.is_none() {
                        return None;
                    }
                    self.at = At::Value(role.unwrap_or(Role::Other), Scan::default(), String::new());
                }
                _ if c.is_whitespace() => {}
                _ => return None,
            },
            At::Value(..) => return self.value(c, known, out),
        }
        Some(false)
    }

    fn value(&mut self, c: char, known: Option<&[String]>, out: &mut Calls) -> Option<bool> {
        let At::Value(role, scan, text) = &mut self.at else { return None };
        let role = *role;
        if text.is_empty() && c.is_whitespace() {
            return Some(false);
        }
        let seen = scan.take(c);
        if seen != Seen::Past {
            text.push(c);
        }
        // Arguments are given out as they come, once it is certain whose they are.
        if role == Role::Arguments && text == "{" && self.name.is_some() {
            let scan = std::mem::take(scan);
            self.at = At::Stream(scan);
            return self.tell("{", known, out).map(|()| false);
        }
        if seen == Seen::Inside {
            return Some(false);
        }
        let text = std::mem::take(text);
        self.at = At::Between;
        self.store(role, text, known, out)?;
        if seen == Seen::Past { self.take(c, known, out) } else { Some(false) }
    }

    fn store(&mut self, role: Role, text: String, known: Option<&[String]>, out: &mut Calls) -> Option<()> {
        match role {
            // Some write the name under `function`.
            Role::Wrapped if !text.starts_with('"') => self.wrapped = Some(text),
            Role::Name | Role::Wrapped => {
                let name: String = serde_json::from_str(&text).ok()?;
                self.name = Some(name).filter(|name| is_name(name));
                self.name.as_ref()?;
                if let Some(early) = self.early.take() {
                    self.tell(&early, known, out)?;
                }
            }
            Role::Arguments => {
                let arguments = arguments(&text)?;
                match self.name {
                    Some(_) => self.tell(&arguments, known, out)?,
                    None => self.early = Some(arguments),
                }
            }
            Role::Other => {}
        }
        Some(())
    }

    fn tell(&mut self, arguments: &str, known: Option<&[String]>, out: &mut Calls) -> Option<()> {
        self.begin(known, out)?;
        out.arguments(arguments);
        self.told = true;
        Some(())
    }

    fn begin(&mut self, known: Option<&[String]>, out: &mut Calls) -> Option<()> {
        let name = self.name.as_ref()?;
        if known.is_some_and(|known| !known.contains(name)) {
            return None;
        }
        if !self.begun {
            out.begin(name);
            self.begun = true;
        }
        Some(())
    }

    /// The end of the object: whether it was a call.
    fn end(&mut self, known: Option<&[String]>, out: &mut Calls) -> bool {
        if self.told {
            return true;
        }
        if self.name.is_some() {
            // Without its arguments, an object that stands alone may be anything.
            return known.is_none() && self.tell("{}", known, out).is_some();
        }
        let Some(Ok(Value::Object(call))) = self.wrapped.take().map(|text| serde_json::from_str(&text))
        else {
            return false;
        };
        self.name = call.get("name").and_then(Value::as_str).filter(|name| is_name(name)).map(str::to_owned);
        let wanted = ["arguments", "parameters"].iter().find_map(|key| call.get(*key));
        let told = arguments(&wanted.unwrap_or(&Value::Null).to_string());
        told.is_some_and(|told| self.tell(&told, known, out).is_some())
    }
}

impl Role {
    /// The role of a key; none if no call has it.
    fn of(key: &str) -> Option<Self> {
        match key {
            "name" => Some(Role::Name),
            "arguments" | "parameters" => Some(Role::Arguments),
            "function" => Some(Role::Wrapped),
            "type" | "id" => Some(Role::Other),
            _ => None,
        }
    }
}

/// Arguments as an object: some models write it as a string, and nothing as null.
fn arguments(text: &str) -> Option<String> {
    match serde_json::from_str(text).ok()? {
        Value::Object(_) => Some(text.to_owned()),
        Value::Null => Some("{}".to_owned()),
        Value::String(inner) => match serde_json::from_str(&inner).ok()? {
            Value::Object(_) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}
