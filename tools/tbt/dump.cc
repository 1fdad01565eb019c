// tbt dump: what passes the cables of a host, as text or as a capture file for Wireshark. The
// frames are copied by the processes that send and receive them (rail/shared_rail.h, capture); this
// command only reads, and a slow one loses copies, never traffic.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>

#include "fabric/attach.h"
#include "rail/shared_rail.h"
#include "sys/monotonic_clock.h"
#include "tbt/commands.h"
#include "tbt/daemon_client.h"
#include "tbt/frame_joiner.h"
#include "tbt/pcapng.h"
#include "tbt/runtime_dir.h"
#include "wire/dissect.h"

namespace tbt::tool {
namespace {

constexpr int64_t kIdleNs = 200000;  // between looks at rails that had nothing for a while
constexpr Duration kAlert = Duration::from_ms(20);  // how long frames are expected to go on
constexpr uint32_t kBurst = 256;  // frames of one rail before the next one has its turn
constexpr int64_t kNsPerSecond = 1000000000;

struct DumpOptions {
  std::string fabric = "default";
  std::optional<uint32_t> host;
  std::optional<uint32_t> cable;
  bool loopback = false;
  std::string file;
  uint64_t count = 0;  // 0: without end
  double seconds = 0;
};

volatile std::sig_atomic_t stop_asked = 0;

void ask_stop(int /*signal*/) { stop_asked = 1; }

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = ask_stop;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &action, nullptr);  // a closed pipe is seen by the write
}

int64_t wall_clock_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * kNsPerSecond + now.tv_nsec;
}

std::string clock_text(int64_t time_ns) {
  const time_t seconds = time_ns / kNsPerSecond;
  tm local{};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:02}:{:02}:{:02}.{:09}", local.tm_hour, local.tm_min, local.tm_sec,
                     time_ns % kNsPerSecond);
}

// Where the frames go. Each call returns whether the frame counts as shown.
class Output {
 public:
  virtual ~Output() = default;
  virtual void begin_rail(const std::string& name, const std::string& description) = 0;
  virtual bool show(uint32_t index, const JoinedFrame& frame) = 0;
  virtual void end_rail(uint32_t index, uint64_t seen, uint64_t lost) = 0;
  // False if nobody reads any more.
  virtual bool flush() = 0;
};

class TextOutput final : public Output {
 public:
  void begin_rail(const std::string& name, const std::string& /*description*/) override {
    names_.push_back(name);
  }
  bool show(uint32_t index, const JoinedFrame& frame) override {
    fmt::print("{} {} {} {}\n", clock_text(frame.time_ns), names_[index], frame.sent ? '>' : '<',
               wire::describe(frame.head, frame.payload));
    return true;
  }
  void end_rail(uint32_t /*index*/, uint64_t /*seen*/, uint64_t /*lost*/) override {}
  bool flush() override { return std::fflush(stdout) == 0; }

 private:
  std::vector<std::string> names_;
};

// Opens with the rights of a file that holds other people's data, whatever it had before.
sys::UniqueFd open_private(const std::string& path) {
  sys::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  struct stat info {};
  const bool ours = fd && ::fstat(fd.get(), &info) == 0 &&
                    (!S_ISREG(info.st_mode) || ::fchmod(fd.get(), 0600) == 0);
  if (!ours) fail(fmt::format("cannot write {}: {}", path, strerror(errno)));
  return fd;
}

class FileOutput final : public Output {
 public:
  explicit FileOutput(const std::string& path) : encoder_("tbt dump") {
    const bool standard = path == "-";
    if (standard && ::isatty(STDOUT_FILENO) != 0) {
      fail("a capture file is not for the terminal: name a file, or pipe it into a program");
    }
    file_ = standard ? sys::UniqueFd(::dup(STDOUT_FILENO)) : open_private(path);
    name_ = standard ? "standard output" : path;
  }
  void begin_rail(const std::string& name, const std::string& description) override {
    encoder_.add_interface(name, description);
  }
  bool show(uint32_t index, const JoinedFrame& frame) override {
    if (!frame.has_packet()) return false;
    const auto packet = frame.packet();
    encoder_.add_packet(index, {frame.time_ns, frame.sent, packet, frame.check()});
    return true;
  }
  void end_rail(uint32_t index, uint64_t seen, uint64_t lost) override {
    encoder_.add_statistics(index, wall_clock_ns(), seen, lost);
  }
  bool flush() override {
    const std::string bytes = encoder_.take();
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::write(file_.get(), bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EPIPE) return false;
      if (n < 0) fail(fmt::format("cannot write {}: {}", name_, strerror(errno)));
      done += static_cast<size_t>(n);
    }
    return true;
  }

 private:
  PcapngEncoder encoder_;
  sys::UniqueFd file_;
  std::string name_;
};

// One rail, captured for as long as this lives.
class CapturedRail {
 public:
  CapturedRail(rail::HostMemory& memory, uint32_t number) : memory_(&memory), number_(number) {
    // What an earlier reader left behind is not of this capture.
    rail::enable_capture(memory, number, false);
    rail::CapturedFrame frame;
    while (rail::read_capture(memory, number, frame, buffer_)) continue;
    lost_before_ = rail::capture_lost(memory, number);
    rail::enable_capture(memory, number, true);
  }
  ~CapturedRail() { stop(); }
  CapturedRail(const CapturedRail&) = delete;
  CapturedRail& operator=(const CapturedRail&) = delete;

  void stop() { rail::enable_capture(*memory_, number_, false); }
  // False: there is no frame. `joined` is empty if one was read that waits for another.
  bool read(std::optional<JoinedFrame>& joined) {
    rail::CapturedFrame frame;
    if (!rail::read_capture(*memory_, number_, frame, buffer_)) return false;
    ++seen_;
    joined = joiner_.add(frame, std::span(buffer_).first(frame.length));
    return true;
  }
  [[nodiscard]] uint64_t seen() const { return seen_; }
  [[nodiscard]] uint64_t lost() const {
    return rail::capture_lost(*memory_, number_) - lost_before_ + joiner_.orphans();
  }

 private:
  rail::HostMemory* memory_;
  uint32_t number_;
  uint64_t seen_ = 0;
  uint64_t lost_before_ = 0;
  FrameJoiner joiner_;
  std::byte buffer_[rail::kFrameBytes];
};

struct Totals {
  uint64_t shown = 0;
  uint64_t left_out = 0;
  uint64_t lost = 0;
  bool daemon_ended = false;
};

// Waits a little; true if the daemon is gone, and the host with it.
bool rest(int connection) {
  pollfd waiting{connection, POLLIN, 0};
  const timespec time{0, kIdleNs};
  if (::ppoll(&waiting, 1, &time, nullptr) <= 0) return false;
  char byte = 0;
  return ::recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

class Capture {
 public:
  Capture(const DumpOptions& options, fabric::Attachment& host, Output& output)
      : options_(&options), host_(&host), output_(&output) {
    const uint32_t cables = host.memory->cables();
    for (uint32_t k = 0; k < cables; ++k) {
      if (options.cable.value_or(k) == k) {
        add(k, fmt::format("tbt0c{}", k), fmt::format("cable {}", k));
      }
    }
    if (options.loopback) add(cables, "loopback", "between processes of the host");
  }

  Totals run() {
    const Instant begin = sys::monotonic_now();
    Instant alert_until = begin;
    const Duration time{static_cast<int64_t>(options_->seconds * 1e9)};
    while (stop_asked == 0 && !done() && !totals_.daemon_ended) {
      const Instant now = sys::monotonic_now();
      const bool expired = time.ns > 0 && now - begin >= time;
      bool found = false;
      for (uint32_t i = 0; i < rails_.size() && !done(); ++i) found |= drain(i);
      if (!output_->flush() || expired) break;
      if (found) alert_until = now + kAlert;
      if (now < alert_until) {
        ::sched_yield();
      } else {
        totals_.daemon_ended = rest(host_->connection.get());
      }
    }
    finish();
    return totals_;
  }

 private:
  void add(uint32_t rail, const std::string& name, const std::string& description) {
    rails_.push_back(std::make_unique<CapturedRail>(*host_->memory, rail));
    output_->begin_rail(name, description);
  }
  [[nodiscard]] bool done() const {
    return options_->count != 0 && totals_.shown >= options_->count;
  }
  bool drain(uint32_t index) {
    std::optional<JoinedFrame> joined;
    uint32_t n = 0;
    for (; n < kBurst && !done() && rails_[index]->read(joined); ++n) {
      if (!joined) continue;
      ++(output_->show(index, *joined) ? totals_.shown : totals_.left_out);
    }
    return n > 0;
  }
  // What was captured before the end is shown too; it is no more than the rails' rings hold.
  void finish() {
    for (auto& rail : rails_) rail->stop();
    for (uint32_t i = 0; i < rails_.size(); ++i) {
      while (drain(i)) continue;
    }
    for (uint32_t i = 0; i < rails_.size(); ++i) {
      output_->end_rail(i, rails_[i]->seen(), rails_[i]->lost());
      totals_.lost += rails_[i]->lost();
    }
    (void)output_->flush();
  }

  const DumpOptions* options_;
  fabric::Attachment* host_;
  Output* output_;
  std::vector<std::unique_ptr<CapturedRail>> rails_;
  Totals totals_;
};

// The socket of the host that is meant: the one that we run on within `tbt run`, or the one that is
// named.
std::string socket_of(DumpOptions& o, bool named) {
  if (!named && ::secure_getenv("TBT_SOCKET") != nullptr) return fabric::daemon_socket_path();
  const fabric::FabricFile file = load_fabric(o.fabric);
  if (!o.host) fail("name the host whose cables are meant: tbt dump --host 0");
  if (*o.host >= file.hosts) {
    fail(fmt::format("fabric '{}' has hosts 0 to {}, no host {}", o.fabric, file.hosts - 1,
                     *o.host));
  }
  return host_file(o.fabric, *o.host, "sock");
}

// A capture has one reader. The log beside the socket serves as the lock, which no crash leaves
// behind.
sys::UniqueFd lock_capture(const std::string& socket) {
  const std::string log = socket.substr(0, socket.rfind('.')) + ".log";
  sys::UniqueFd fd(::open(log.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    fail("another tbt dump captures on this host: end it first");
  }
  return fd;
}

std::unique_ptr<fabric::Attachment> attach_or_fail(const DumpOptions& o,
                                                   const std::string& socket) {
  auto host = fabric::attach(socket);
  if (host) return std::move(host).value();
  if (o.host) fail(unreachable_text(o.fabric, *o.host, host.error()));
  fail(fmt::format("cannot attach to the daemon at {}: {} ({})", socket, host.error().text(),
                   strerror(host.error().code())));
}

void print_summary(const Totals& totals) {
  fmt::print(stderr, "tbt dump: {} frames shown", totals.shown);
  if (totals.left_out != 0) fmt::print(stderr, ", {} control frames left out", totals.left_out);
  if (totals.lost != 0) fmt::print(stderr, ", {} lost because they came too fast", totals.lost);
  fmt::print(stderr, "{}\n", totals.daemon_ended ? "; the host's daemon ended" : "");
}

void run(DumpOptions& o, bool named) {
  const std::string socket = socket_of(o, named);
  const sys::UniqueFd lock = lock_capture(socket);
  const auto host = attach_or_fail(o, socket);
  const uint32_t cables = host->memory->cables();
  if (o.cable && *o.cable >= cables) {
    fail(cables == 0
             ? "this host has no cable: use --loopback"
             : fmt::format("this host has cables 0 to {}, no cable {}", cables - 1, *o.cable));
  }
  std::unique_ptr<Output> output;
  if (o.file.empty()) {
    output = std::make_unique<TextOutput>();
  } else {
    output = std::make_unique<FileOutput>(o.file);
  }
  catch_signals();
  Capture capture(o, *host, *output);
  fmt::print(stderr, "tbt dump: capturing\n");  // from here on nothing is missed
  print_summary(capture.run());
}

}  // namespace

void add_dump(CLI::App& app) {
  auto o = std::make_shared<DumpOptions>();
  CLI::App* command = app.add_subcommand("dump", "Show or record what passes a host's cables");
  command->add_option("--fabric", o->fabric, "name of the fabric")->capture_default_str();
  command->add_option("--host", o->host, "number of the host, from 0");
  command->add_option("--cable", o->cable, "only this cable of the host, from 0");
  command->add_flag("--loopback", o->loopback, "also between processes of the host");
  command->add_option("-w,--write", o->file, "write a capture file (pcapng); -: standard output");
  command->add_option("-c,--count", o->count, "end after so many frames");
  command->add_option("--seconds", o->seconds, "end after so many seconds")
      ->check(CLI::Range(0.0, 1e9));
  command->callback(
      [o, command] { run(*o, command->count("--fabric") + command->count("--host") > 0); });
}

}  // namespace tbt::tool
