//! Names to addresses, off the shard: the system's resolver blocks.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard};

use futures_channel::oneshot;

use crate::failure::{self, FailureClass};

/// Addresses of a host, in the order of the system's resolver. A literal address is its own.
///
/// # Errors
/// What the resolver answers, noted as [`FailureClass::Resolve`].
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let looked_up = look_up(host.to_owned(), port).await;
    if looked_up.is_err() {
        failure::note(FailureClass::Resolve);
    }
    looked_up
}

/// Threads that ask the resolver at a time. It answers most names at once, and a target has few.
const MOST_THREADS: usize = 4;

type Answer = io::Result<Vec<SocketAddr>>;

/// A name that somebody waits for, and all who do.
struct Question {
    host: String,
    port: u16,
    asking: Vec<oneshot::Sender<Answer>>,
    /// A thread has it; it stays here so that those who ask meanwhile join the others.
    taken: bool,
}

struct Questions {
    open: Vec<Question>,
    threads: usize,
}

static QUESTIONS: Mutex<Questions> = Mutex::new(Questions { open: Vec::new(), threads: 0 });

fn questions() -> MutexGuard<'static, Questions> {
    QUESTIONS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Ten thousand instances that start at once ask one question.
async fn look_up(host: String, port: u16) -> Answer {
    let (asking, answer) = oneshot::channel();
    ask(host, port, asking)?;
    answer.await.unwrap_or_else(|_| Err(io::Error::other("the resolver's thread ended early")))
}

fn ask(host: String, port: u16, asking: oneshot::Sender<Answer>) -> io::Result<()> {
    let mut questions = questions();
    let same = |question: &&mut Question| question.host == host && question.port == port;
    if let Some(question) = questions.open.iter_mut().find(same) {
        question.asking.push(asking);
        return Ok(());
    }
    questions.open.push(Question { host, port, asking: vec![asking], taken: false });
    if questions.threads < MOST_THREADS {
        let started = std::thread::Builder::new().name("balter-resolve".to_owned()).spawn(answer);
        match started {
            Ok(_) => questions.threads += 1,
            // Those that run will come to it.
            Err(_) if questions.threads > 0 => {}
            Err(error) => {
                questions.open.pop();
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Answers questions until none is open.
fn answer() {
    loop {
        let (host, port) = {
            let mut questions = questions();
            let Some(question) = questions.open.iter_mut().find(|question| !question.taken) else {
                questions.threads -= 1;
                return;
            };
            question.taken = true;
            (question.host.clone(), question.port)
        };
        let addresses = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        let mut questions = questions();
        let mine = |question: &Question| question.host == host && question.port == port;
        let Some(at) = questions.open.iter().position(mine) else { continue };
        let question = questions.open.swap_remove(at);
        drop(questions);
        for asking in question.asking {
            // Who has given up waiting does not mind.
            let _ = asking.send(match &addresses {
                Ok(addresses) if addresses.is_empty() => {
                    Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
                }
                Ok(addresses) => Ok(addresses.clone()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, zip};

    use super::*;

    #[test]
    fn many_who_ask_for_one_name_are_all_answered() {
        let asking = (0..100).map(|_| std::thread::spawn(|| block_on(resolve("localhost", 80))));
        for asking in asking.collect::<Vec<_>>() {
            let addresses = asking.join().expect("no panic").expect("a name of every machine");
            assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        }
        assert!(questions().threads <= MOST_THREADS);
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_error_for_each() {
        let (one, two) =
            block_on(zip(resolve("no.such.invalid", 1), resolve("no.such.invalid", 1)));
        assert!(one.is_err() && two.is_err());
    }
}
