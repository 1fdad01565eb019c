#include "tbtd/clients.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "sys/process.h"

namespace tbt::daemon {
namespace {

constexpr uint64_t kListenerTag = Clients::kFirstTag;

// Each client has two tags, for its socket and for its process.
constexpr uint64_t socket_tag(uint64_t id) { return kListenerTag + 2 * id; }
constexpr uint64_t process_tag(uint64_t id) { return kListenerTag + 2 * id + 1; }

bool watch(int epoll, int fd, uint64_t tag) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = tag;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool may_talk_to_us(const sys::PeerCredentials& who) {
  return who.uid == 0 || who.uid == ::geteuid() || who.gid == ::getegid();
}

sys::UniqueFd open_spare() { return sys::UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

void refuse(int socket, int code, std::string_view text) {
  (void)sys::send_message(socket, fabric::encode_refusal(code, text), {});
}

}  // namespace

Clients::Clients(int epoll, sys::UniqueFd listener, Hooks hooks)
    : epoll_(epoll),
      listener_(std::move(listener)),
      spare_(open_spare()),
      hooks_(std::move(hooks)) {
  watch(epoll_, listener_.get(), kListenerTag);
}

void Clients::handle(uint64_t tag, Instant now) {
  if (tag == kListenerTag) return accept_all(now);
  const uint64_t id = (tag - kListenerTag) / 2;
  const auto it = clients_.find(id);
  if (it == clients_.end()) return;  // dropped by an earlier event of the same round
  if (tag == process_tag(id)) {
    drop(id);
  } else {
    serve(id);
  }
}

void Clients::accept_all(Instant now) {
  while (true) {
    auto socket = sys::accept_seqpacket(listener_.get());
    if (!socket) {
      const int code = socket.error().code();
      if (code == EMFILE && turn_away()) continue;
      if (code != EAGAIN) spdlog::warn("{}: {}", socket.error().text(), strerror(code));
      return;
    }
    admit(std::move(socket).value(), now);
  }
}

// Without this the connection would stay in the queue and wake us for ever.
bool Clients::turn_away() {
  if (!spare_) return false;
  spare_.reset();
  if (const auto socket = sys::accept_seqpacket(listener_.get()); socket) {
    refused_++;
    refuse(socket.value().get(), EMFILE, "the daemon has too few file descriptors");
  }
  spare_ = open_spare();
  return true;
}

void Clients::admit(sys::UniqueFd socket, Instant now) {
  const auto who = sys::peer_credentials(socket.get());
  if (!who || !may_talk_to_us(who.value())) {
    refused_++;
    return refuse(socket.get(), EACCES, "this fabric belongs to another user");
  }
  if (pending_ >= kPendingMax) {
    refused_++;
    return refuse(socket.get(), EAGAIN, "too many connections");
  }
  const uint64_t id = next_id_++;
  if (!watch(epoll_, socket.get(), socket_tag(id))) return;
  Client& client = clients_[id];
  client.socket = std::move(socket);
  client.credentials = who.value();
  client.since = now;
  pending_++;
}

void Clients::adopt(rail::SlotId slot, sys::UniqueFd socket, sys::UniqueFd process) {
  const uint64_t id = next_id_++;
  Client& client = clients_[id];
  client.socket = std::move(socket);
  client.process = std::move(process);
  client.slot = slot;
  if (const auto who = sys::peer_credentials(client.socket.get()); who) {
    client.credentials = who.value();
  }
  watch(epoll_, client.socket.get(), socket_tag(id));
  if (client.process) watch(epoll_, client.process.get(), process_tag(id));
}

void Clients::serve(uint64_t id) {
  Client& client = clients_.at(id);
  const auto message = sys::receive_message(client.socket.get(), 0);
  if (!message) {
    if (message.error().code() == EAGAIN) return;
    if (message.error().code() == EMSGSIZE) {
      refused_++;
      refuse(client.socket.get(), EMSGSIZE, "request too long");
    }
    return drop(id);
  }
  fabric::Request request;
  if (const Status s = fabric::decode_request(message.value().text, request); !s) {
    refused_++;
    spdlog::info("refused a request of process {}: {}", client.credentials.pid, s.text());
    refuse(client.socket.get(), s.code(), s.text());
    return drop(id);
  }
  const Answer answer = hooks_.answer(client, request);
  if (answer.attached != rail::kNoSlot) {
    client.slot = answer.attached;
    pending_--;
    if (auto process = sys::open_pidfd(client.credentials.pid); process) {
      client.process = std::move(process).value();
      watch(epoll_, client.process.get(), process_tag(id));
    }
    if (hooks_.attached) hooks_.attached(client);
  }
  if (!reply(client, answer) || answer.close) drop(id);
}

bool Clients::reply(const Client& client, const Answer& answer) {
  const Status s = sys::send_message(client.socket.get(), answer.text, answer.fds);
  if (!s) spdlog::warn("process {}: {}: {}", client.credentials.pid, s.text(), strerror(s.code()));
  return s.ok();
}

void Clients::drop(uint64_t id) {
  const auto it = clients_.find(id);
  const rail::SlotId slot = it->second.slot;
  const pid_t pid = it->second.credentials.pid;
  if (slot == rail::kNoSlot) pending_--;
  clients_.erase(it);  // closing takes the descriptors out of the epoll set
  if (slot != rail::kNoSlot) hooks_.gone(slot, pid);
}

Instant Clients::expire(Instant now) {
  if (pending_ == 0) return Instant::never();
  Instant next = Instant::never();
  std::vector<uint64_t> late;
  for (const auto& [id, client] : clients_) {
    if (client.slot != rail::kNoSlot) continue;
    const Instant due = client.since + kPendingFor;
    if (due <= now) {
      late.push_back(id);
    } else {
      next = std::min(next, due);
    }
  }
  for (const uint64_t id : late) drop(id);
  return next;
}

}  // namespace tbt::daemon
