//! A child process with its output collected, and ended when dropped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Default)]
struct Output {
    text: String,
    /// What of it came on standard output.
    stdout: String,
    open: usize,
}

/// A running program. Its standard output and error are read all the time, so it never blocks on them.
pub struct Running {
    child: Child,
    output: Arc<(Mutex<Output>, Condvar)>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let output = Arc::new((Mutex::new(Output { open: 2, ..Output::default() }), Condvar::new()));
        if let Some(pipe) = child.stdout.take() {
            collect(pipe, &output, |out, line| {
                out.text.push_str(line);
                out.stdout.push_str(line);
            });
        }
        if let Some(pipe) = child.stderr.take() {
            collect(pipe, &output, |out, line| out.text.push_str(line));
        }
        Self { child, output }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far.
    pub fn printed(&self) -> String {
        self.output.0.lock().expect("no reader panics").text.clone()
    }

    /// As [`Running::printed`], without the lines on standard error, which may fall into the middle of it.
    pub fn stdout(&self) -> String {
        self.output.0.lock().expect("no reader panics").stdout.clone()
    }

    /// Waits until `needle` was printed; panics with the output if the program ends or stays silent before.
    pub fn wait_for(&self, needle: &str, most: Duration) {
        let (lock, changed) = &*self.output;
        let guard = lock.lock().expect("no reader panics");
        let waiting = |out: &mut Output| !out.text.contains(needle) && out.open > 0;
        let (out, _) = changed.wait_timeout_while(guard, most, waiting).expect("no reader panics");
        assert!(out.text.contains(needle), "'{needle}' was not printed within {most:?}. Printed:\n{}", out.text);
    }

    /// Waits for the end of the program by itself.
    pub fn wait_end(&mut self, most: Duration) -> ExitStatus {
        let (lock, changed) = &*self.output;
        let guard = lock.lock().expect("no reader panics");
        let (out, timeout) = changed.wait_timeout_while(guard, most, |out| out.open > 0).expect("no reader panics");
        assert!(!timeout.timed_out(), "still running after {most:?}. Printed:\n{}", out.text);
        drop(out);
        self.child.wait().expect("our own child")
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, for programs that must end by themselves.
    pub fn terminate(&self) {
        let _ = Command::new("kill").arg(self.id().to_string()).status();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(pipe: impl Read + Send + 'static, output: &Arc<(Mutex<Output>, Condvar)>, take: fn(&mut Output, &str)) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let (lock, changed) = &*output;
            if let Ok(mut out) = lock.lock() {
                take(&mut out, &String::from_utf8_lossy(&line));
            }
            changed.notify_all();
            line.clear();
        }
        let (lock, changed) = &*output;
        if let Ok(mut out) = lock.lock() {
            out.open -= 1;
        }
        changed.notify_all();
    });
}
