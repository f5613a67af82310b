//! A small HTTP/1.1 server for tests: one thread per connection, one request per connection, answers from a
//! function. It can do what well-behaved servers do not: break off, stay silent, answer before the request
//! is through.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// The value of `X-Stream-Error`; with it the body is chunked and ends in a trailer.
    pub trailer: Option<String>,
    /// Close the connection before the end of the body.
    pub broken: bool,
    /// Say nothing at all.
    pub silent: bool,
    /// Headers and their values.
    pub headers: Vec<(String, String)>,
}

impl Answer {
    pub fn bytes(body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: 200,
            body: body.into(),
            trailer: None,
            broken: false,
            silent: false,
            headers: Vec::new(),
        }
    }

    pub fn text(body: &str) -> Answer {
        Answer::bytes(body)
    }

    pub fn json(value: &Value) -> Answer {
        Answer::bytes(format!("{value}\n"))
    }

    /// A chunked body and a trailer.
    pub fn stream(body: &str, error: &str) -> Answer {
        Answer { trailer: Some(error.to_string()), ..Answer::bytes(body) }
    }

    pub fn status(mut self, status: u16) -> Answer {
        self.status = status;
        self
    }

    pub fn broken(mut self) -> Answer {
        self.broken = true;
        self
    }

    pub fn silent() -> Answer {
        Answer { silent: true, ..Answer::bytes("") }
    }

    pub fn write(&self, stream: &mut impl Write) -> std::io::Result<()> {
        if self.silent {
            std::thread::sleep(Duration::from_secs(30));
            return Ok(());
        }
        write!(
            stream,
            "HTTP/1.1 {} X\r\nContent-Type: application/json\r\nConnection: close\r\n",
            self.status
        )?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        match &self.trailer {
            None => {
                let length = self.body.len() + usize::from(self.broken);
                write!(stream, "Content-Length: {length}\r\n\r\n")?;
                stream.write_all(&self.body)
            }
            Some(error) => {
                write!(stream, "Trailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                // Small chunks that split lines anywhere.
                for piece in self.body.chunks(1000) {
                    write!(stream, "{:x}\r\n", piece.len())?;
                    stream.write_all(piece)?;
                    write!(stream, "\r\n")?;
                }
                if self.broken {
                    return Ok(());
                }
                write!(stream, "0\r\nX-Stream-Error: {error}\r\n\r\n")
            }
        }
    }
}

/// The running server; it ends with the test.
pub struct Server {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers whole requests.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        Self::raw(move |asked, mut reader, mut stream| {
            let mut asked = asked;
            read_body(&mut asked, &mut reader)?;
            let answered = answer(&asked);
            answered.write(&mut stream)?;
            stream.flush()?;
            Ok(asked)
        })
    }

    /// Hands out the connection after the head of the request.
    pub fn raw(
        talk: impl Fn(Asked, BufReader<TcpStream>, TcpStream) -> std::io::Result<Asked> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("address").port();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, talk) = (Arc::clone(&asked), Arc::new(talk));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), log, talk) = (stream, Arc::clone(&log), Arc::clone(&talk)) else { continue };
                std::thread::spawn(move || {
                    let Ok(copy) = stream.try_clone() else { return };
                    let mut reader = BufReader::new(copy);
                    let Ok(Some(head)) = read_head(&mut reader) else { return };
                    // A client that goes away early is what some tests are about.
                    if let Ok(asked) = talk(head, reader, stream) {
                        log.lock().expect("log").push(asked);
                    }
                });
            }
        });
        Server { port, asked }
    }

    pub fn multiaddr(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.port)
    }

    /// Requests that were answered, without their bodies.
    pub fn asked(&self) -> Vec<String> {
        self.requests().iter().map(|a| format!("{} {}?{}", a.method, a.path, a.query)).collect()
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.asked.lock().expect("log").clone()
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut parts = line.split_whitespace();
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else { return Ok(None) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut asked =
        Asked { method: method.into(), path: path.into(), query: query.into(), ..Asked::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        asked.headers.push((name.to_string(), value.trim().to_string()));
    }
    Ok(Some(asked))
}

/// Reads a body by its length or its chunks.
pub fn read_body(asked: &mut Asked, reader: &mut impl BufRead) -> std::io::Result<()> {
    if let Some(length) = asked.header("content-length").and_then(|l| l.parse::<usize>().ok()) {
        asked.body = vec![0; length];
        return reader.read_exact(&mut asked.body);
    }
    if asked.header("transfer-encoding").is_none() {
        return Ok(());
    }
    while let Some(chunk) = read_chunk(reader)? {
        asked.body.extend_from_slice(&chunk);
    }
    Ok(())
}

/// The next chunk of a chunked body; `None` at its end.
pub fn read_chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut size = String::new();
    reader.read_line(&mut size)?;
    let size = usize::from_str_radix(size.trim(), 16)
        .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))?;
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}
