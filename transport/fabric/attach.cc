// The process's side of attaching: ask, take the descriptors, map, open. Nothing is left behind on failure:
// everything hangs on the Attachment, and the daemon takes the slot back when the connection closes.
#include "fabric/attach.h"

#include <cstdlib>

#include "fabric/attach_protocol.h"
#include "rail/shared_rail.h"
#include "sys/unix_socket.h"

namespace tbt::fabric {
namespace {

constexpr int kAnswerTimeoutMs = 2000;
constexpr const char* kDefaultSocket = "/run/tbt/tbtd.sock";

// The daemon's own words cannot travel in a Status; these are for the codes that it gives.
Status refusal(int code) noexcept {
  switch (code) {
    case EAGAIN: return Status(EAGAIN, "the host has no free process slot");
    case EACCES: return Status(EACCES, "the daemon serves only its own user and group");
    case EPROTO: return Status(EPROTO, "the daemon speaks another version");
    default: return Status(code, "the daemon refused");
  }
}

Result<sys::Message> ask(int socket) {
  const Request request{.operation = Operation::kAttach};
  if (const Status s = sys::send_message(socket, encode_request(request), {}); !s) return s;
  return sys::receive_message(socket, kAnswerTimeoutMs);
}

Status map_memories(Attachment& a, const AttachGrant& grant, std::vector<sys::UniqueFd>& fds) {
  auto silicon = rail::emulated::EmulatedFabric::map(std::move(fds[0]));
  if (!silicon) return silicon.error();
  a.silicon = std::move(silicon).value();
  if (a.silicon->hosts() != grant.hosts) return Status(EPROTO, "the daemon's answer makes no sense");
  for (uint32_t h = 0; h < grant.hosts; h++) {
    auto memory = rail::HostMemory::map(std::move(fds[1 + h]));
    if (!memory) return memory.error();
    a.memories.push_back(std::move(memory).value());
    a.interrupt_fds.push_back(std::move(fds[1 + grant.hosts + h]));
    a.silicon->attach_host(h, a.memories[h].get(), a.interrupt_fds[h].get());
  }
  a.slot = grant.slot;
  a.memory = a.memories[grant.host].get();
  a.memory->set_daemon_wake_fd(a.interrupt_fds[grant.host].get());
  return {};
}

Status open_rails(Attachment& a, uint32_t host) {
  a.device = a.silicon->open_device(host);
  for (uint32_t k = 0; k < a.memory->cables(); k++) {
    a.rails.push_back(rail::open_nhi_rail(*a.memory, k, *a.device, a.slot, classify));
  }
  a.rails.push_back(rail::open_loopback_rail(*a.memory, a.slot, classify));
  for (const auto& rail : a.rails) {
    if (rail == nullptr) return Status(EIO, "a rail cannot be opened");
  }
  return {};
}

}  // namespace

std::string daemon_socket_path() {
  const char* path = ::secure_getenv("TBT_SOCKET");
  return path != nullptr && *path != '\0' ? path : kDefaultSocket;
}

Result<std::unique_ptr<Attachment>> attach(const std::string& socket_path) {
  auto connection = sys::connect_seqpacket(socket_path);
  if (!connection) return connection.error();
  auto answer = ask(connection->get());
  if (!answer) {
    const int code = answer.error().code();
    return code == EPIPE ? Status(ECONNREFUSED, "the daemon closed the connection") : answer.error();
  }
  Reply reply;
  if (const Status s = decode_reply(answer->text, /*expect_grant=*/true, reply); !s) return s;
  if (reply.code != 0) return refusal(reply.code);
  if (answer->fds.size() != 1 + 2 * reply.grant.hosts) {
    return Status(EPROTO, "the daemon's answer lacks descriptors");
  }
  auto attachment = std::make_unique<Attachment>();
  attachment->connection = std::move(connection).value();
  if (const Status s = map_memories(*attachment, reply.grant, answer->fds); !s) return s;
  if (const Status s = open_rails(*attachment, reply.grant.host); !s) return s;
  return attachment;
}

}  // namespace tbt::fabric
