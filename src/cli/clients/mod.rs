//! `tollgate clients`: the admin API from a shell.
//!
//! What the API says goes to standard output, as a table or as JSON; what it refuses goes to standard error in its own
//! words, and ends the command with 1. Nothing is asked back and nothing is retried, so a script knows what was done.

mod args;
mod body;
mod difference;
mod table;

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use ureq::SendBody;

use super::api::{AnswerPatience, ApiClient, Content, EMPTY, client_path, percent_encoded, plain};
use super::failure::Failure;
use super::progress::Progress;
use crate::client::ClientId;
use args::{ClientFlags, ClientsCommand};
use table::TextTable;

pub(super) use args::ClientsArgs;

/// The most clients that the API gives at once.
const PAGE: usize = 1000;

/// How often the API is asked how far it is with what was sent.
const LOOK: Duration = Duration::from_millis(100);

/// The types of what is sent.
const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Does what was typed.
pub(super) fn run(args: ClientsArgs) -> Result<(), Failure> {
    let api = ApiClient::new(args.endpoint.resolve(|name| std::env::var_os(name))?);
    let json = args.json;
    match args.action {
        ClientsCommand::List { search } => list(&api, search.as_deref(), json),
        ClientsCommand::Get { name } => {
            show(&api.json(AnswerPatience::Call, Method::GET, &client_path(&name.id), EMPTY)?, json)
        }
        ClientsCommand::Add { name, capacity, rate, fields } => {
            let body = body::of_new(&name.id, (capacity, rate.as_ref()), &with_key(fields)?);
            show(&api.json(AnswerPatience::Call, Method::POST, "/clients", content(JSON, &body))?, json)
        }
        ClientsCommand::Set { name, capacity, rate, fields, cleared } => {
            let limit = (capacity, rate.as_ref());
            let Some(body) = body::of_change(limit, &with_key(fields)?, cleared.fields()) else {
                return Err(Failure::Usage(
                    "nothing to set: give at least one flag (`tollgate clients set --help`)".into(),
                ));
            };
            let path = client_path(&name.id);
            show(&api.json(AnswerPatience::Call, Method::PATCH, &path, content(MERGE_PATCH, &body))?, json)
        }
        ClientsCommand::Remove { name } => {
            api.call(AnswerPatience::Call, Method::DELETE, &client_path(&name.id), EMPTY)?;
            if json { Ok(()) } else { print(|out| writeln!(out, "{} removed", name.id)) }
        }
        ClientsCommand::Reset { name } => post(&api, &name.id, "reset", None, json),
        ClientsCommand::Grant { name, tokens } => post(&api, &name.id, "grant", Some(json!({"tokens": tokens})), json),
        ClientsCommand::Promote { name } => post(&api, &name.id, "promote", None, json),
        ClientsCommand::Recommend { name, window } => {
            let window = window.map_or_else(String::new, |window| format!("?window={}", percent_encoded(&window)));
            let path = format!("{}/recommend{window}", client_path(&name.id));
            show(&api.json(AnswerPatience::Call, Method::GET, &path, EMPTY)?, json)
        }
        ClientsCommand::AddKey { name, expires_at } => {
            post(&api, &name.id, "keys", Some(json!({"expires_at": expires_at})), json)
        }
        ClientsCommand::RemoveKey { name, key_id } => {
            let path = format!("{}/keys/{}", client_path(&name.id), percent_encoded(&key_id));
            api.call(AnswerPatience::Call, Method::DELETE, &path, EMPTY)?;
            if json { Ok(()) } else { print(|out| writeln!(out, "key {} of {} removed", plain(&key_id), name.id)) }
        }
        ClientsCommand::Apply { file, dry_run, prune } => apply(&api, &file, dry_run, prune, json),
        ClientsCommand::Export => export(&api),
    }
}

/// Makes a call about one client, and prints what it answers.
fn post(api: &ApiClient, id: &ClientId, call: &str, body: Option<Value>, json: bool) -> Result<(), Failure> {
    let path = format!("{}/{call}", client_path(id));
    let content = body.and_then(|body| content(JSON, &body));
    show(&api.json(AnswerPatience::Call, Method::POST, &path, content)?, json)
}

fn content(kind: &'static str, body: &Value) -> Option<Content<String>> {
    Some(Content { kind, body: body.to_string(), waits: false })
}

/// The fields with the key itself in place of a `-` for standard input.
fn with_key(fields: ClientFlags) -> Result<ClientFlags, Failure> {
    if fields.api_key.as_deref() != Some("-") {
        return Ok(fields);
    }
    let mut line = String::new();
    // More than any key, so that an endless input ends here.
    let read = io::stdin().lock().take(1 << 16).read_line(&mut line);
    let refused = |reason: &dyn std::fmt::Display| Failure::Usage(format!("--api-key -: standard input {reason}"));
    read.map_err(|error| refused(&format_args!("cannot be read: {error}")))?;
    let key = line.trim_end_matches(['\r', '\n']);
    if key.is_empty() {
        Err(refused(&"holds no key"))
    } else {
        Ok(ClientFlags { api_key: Some(key.to_owned()), ..fields })
    }
}

/// Prints all clients, of all pages.
fn list(api: &ApiClient, search: Option<&str>, json: bool) -> Result<(), Failure> {
    let search = search.map_or_else(String::new, |text| format!("&q={}", percent_encoded(text)));
    let mut table = TextTable::default();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut cursor: Option<String> = None;
    let mut before = "[\n";
    loop {
        let from = cursor.as_deref().map_or_else(String::new, |at| format!("&cursor={}", percent_encoded(at)));
        let path = format!("/clients?limit={PAGE}{search}{from}");
        let (_, page) = api.json(AnswerPatience::Call, Method::GET, &path, EMPTY)?;
        let items = page["items"].as_array().ok_or_else(|| api.no_such_api("a page without items"))?;
        for client in items {
            if json {
                write!(out, "{before}{client}").map_err(Failure::Output)?;
                before = ",\n";
            } else {
                table.add(client);
            }
        }
        let next = page["next_cursor"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
        if next == cursor {
            return Err(api.no_such_api("a page that is followed by itself"));
        }
        cursor = next;
    }
    let written = match (json, before) {
        (true, "[\n") => writeln!(out, "[]"),
        (true, _) => writeln!(out, "\n]"),
        (false, _) => table.write(&mut out),
    };
    written.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Prints one client.
fn show((text, client): &(String, Value), json: bool) -> Result<(), Failure> {
    print(|out| if json { writeln!(out, "{}", text.trim_end()) } else { table::write_fields(client, out) })
}

/// Makes the clients what `file` says, and prints the difference.
fn apply(api: &ApiClient, file: &Path, dry_run: bool, prune: bool, json: bool) -> Result<(), Failure> {
    let refused = |error: io::Error| Failure::Usage(format!("{}: {error}", file.display()));
    let progress;
    let then = if dry_run { "finding out what would change" } else { "changing clients" };
    let body = if file == Path::new("-") {
        progress = Progress::bytes("sending", None);
        SendBody::from_owned_reader(progress.upload(io::stdin(), then))
    } else {
        let opened = File::open(file).map_err(refused)?;
        let found = opened.metadata().map_err(refused)?;
        if found.is_dir() {
            return Err(Failure::Usage(format!("{}: this is a directory, not a file", file.display())));
        }
        progress =
            Progress::bytes(format!("sending {}", file.display()), Some(found.len()).filter(|_| found.is_file()));
        SendBody::from_owned_reader(progress.upload(opened, then))
    };
    let path = format!("/clients?dry_run={}&prune={}", u8::from(dry_run), u8::from(prune));
    let content = Content { kind: JSON, body, waits: true };
    let answered = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        let watching = progress.is_shown().then(|| scope.spawn(|| watch(api, &progress, &answered, then)));
        let answer = api.json(AnswerPatience::Bulk, Method::PUT, &path, Some(content));
        answered.store(true, Ordering::Relaxed);
        watching.inspect(|watching| watching.thread().unpark());
        answer
    });
    drop(progress);
    let (text, difference) = answer?;
    print(|out| if json { writeln!(out, "{}", text.trim_end()) } else { difference::write(&difference, out) })
}

/// Shows how far the API is with what was sent, by what it says of itself, until it has answered.
fn watch(api: &ApiClient, progress: &Progress, answered: &AtomicBool, what: &'static str) {
    let mut counts = false;
    while !answered.load(Ordering::Relaxed) {
        // One that does not say how far it is goes on waiting.
        if let Ok((_, status)) = api.json(AnswerPatience::Probe, Method::GET, "/status", EMPTY)
            && let [Some(done), Some(all)] = ["done", "all"].map(|key| status["importing"][key].as_u64())
            && !answered.load(Ordering::Relaxed)
        {
            if !std::mem::replace(&mut counts, true) {
                progress.count(what);
            }
            progress.set(done, all);
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Copies all clients to standard output as they come.
fn export(api: &ApiClient) -> Result<(), Failure> {
    let answer = api.call(AnswerPatience::Stream, Method::GET, "/clients?format=ndjson", EMPTY)?;
    let mut reader = answer.into_body().into_reader();
    let mut out = io::stdout().lock();
    let mut piece = [0; 64 << 10];
    loop {
        let broken = |error| Failure::ApiClient(format!("the export broke off and is not complete: {error}"));
        match reader.read(&mut piece) {
            Ok(0) => return out.flush().map_err(Failure::Output),
            Ok(read) => out.write_all(&piece[..read]).map_err(Failure::Output)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(Failure::Output)
}
