#include "tbt/daemon_client.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "fabric/attach.h"
#include "fabric/json_text.h"
#include "sys/unix_socket.h"
#include "tbt/commands.h"
#include "tbt/runtime_dir.h"

namespace tbt::tool {
namespace {

constexpr int kAnswerTimeoutMs = 5000;  // as fabric::attach()

Result<std::string> ask(const std::string& socket_path, const fabric::Request& request) {
  const auto socket = sys::connect_seqpacket(socket_path);
  if (!socket) return socket.error();
  auto answer =
      sys::exchange(socket.value().get(), fabric::encode_request(request), kAnswerTimeoutMs);
  if (!answer) return answer.error();
  return std::move(answer.value().text);
}

}  // namespace

Result<nlohmann::json> ask_status(const std::string& socket_path) {
  const auto text = ask(socket_path, {.operation = fabric::Operation::kStatus});
  if (!text) return text.error();
  fabric::Reply reply;
  if (const Status s = fabric::decode_reply(text.value(), fabric::Expected::kDone, reply); !s)
    return s;
  if (reply.code != 0) return Status(reply.code, "the daemon refused");
  return fabric::parse_json_object(text.value());
}

std::string unreachable_text(const std::string& fabric, uint32_t host, const Status& status) {
  const std::string who = fmt::format("host {} of fabric '{}'", host, fabric);
  const std::string restart = fmt::format("'tbt fabric down --name {0}', then up again", fabric);
  switch (status.code()) {
    case ENOENT:
      return fmt::format("{} has no daemon: {}", who, restart);
    case ECONNREFUSED:
    case EPIPE:
      return fmt::format("the daemon of {} is dead: {}", who, restart);
    case EACCES:
      return fmt::format(
          "not allowed to use {}: its socket belongs to another user, run as that user", who);
    case ETIMEDOUT:
      return fmt::format("the daemon of {} does not answer: see {}, then {}", who,
                         host_file(fabric, host, "log"), restart);
    default:
      return fmt::format("cannot ask the daemon of {}: {} ({})", who, status.text(),
                         strerror(status.code()));
  }
}

nlohmann::json status_or_fail(const std::string& fabric, uint32_t host) {
  auto status = ask_status(host_file(fabric, host, "sock"));
  if (!status) fail(unreachable_text(fabric, host, status.error()));
  return std::move(status).value();
}

bool is_about_own_host(bool names_one) {
  if (names_one) return false;
  if (::secure_getenv("TBT_SOCKET") != nullptr) return true;
  return !fabric_exists("default") && ::access(fabric::daemon_socket_path().c_str(), F_OK) == 0;
}

nlohmann::json own_status_or_fail() {
  const std::string path = fabric::daemon_socket_path();
  auto status = ask_status(path);
  if (!status) {
    fail(fmt::format("cannot ask the daemon at {}: {} ({})", path, status.error().text(),
                     strerror(status.error().code())));
  }
  return std::move(status).value();
}

// A host whose daemon does not answer is a fact to report, not a failure.
nlohmann::json fabric_report(const std::string& name) {
  using nlohmann::json;
  const fabric::FabricFile file = load_fabric(name);
  json cables = json::array();
  for (uint32_t c = 0; c < file.cables.size(); c++) {
    cables.push_back({{"cable", c}, {"a", file.cables[c].host_a}, {"b", file.cables[c].host_b}});
  }
  json hosts = json::array();
  for (uint32_t h = 0; h < file.hosts; h++) {
    const auto status = ask_status(host_file(name, h, "sock"));
    hosts.push_back(status
                        ? status.value()
                        : json{{"host", h}, {"error", unreachable_text(name, h, status.error())}});
  }
  return {{"name", name},      {"topology", file.topology},     {"hops", file.hops},
          {"seed", file.seed}, {"directory", fabric_dir(name)}, {"cables", cables},
          {"hosts", hosts}};
}

void change_cable_or_fail(const std::string& fabric, uint32_t cable,
                          const fabric::CableSettings& settings) {
  const fabric::FabricFile file = load_fabric(fabric);
  if (cable >= file.cables.size()) {
    fail(fmt::format("fabric '{}' has no cable {}: 'tbt cable list' shows them", fabric, cable));
  }
  tell_or_fail(fabric, file.cables[cable].host_a,
               {.operation = fabric::Operation::kCable, .cable = cable, .settings = settings});
}

void tell_or_fail(const std::string& fabric, uint32_t host, const fabric::Request& request) {
  const fabric::FabricFile file = load_fabric(fabric);
  if (host >= file.hosts) {
    fail(fmt::format("fabric '{}' has no host {}: it has 0 to {}", fabric, host, file.hosts - 1));
  }
  const auto text = ask(host_file(fabric, host, "sock"), request);
  if (!text) fail(unreachable_text(fabric, host, text.error()));
  fabric::Reply reply;
  if (!fabric::decode_reply(text.value(), fabric::Expected::kDone, reply))
    fail("the daemon's answer makes no sense");
  if (reply.code != 0) fail(reply.text);
}

}  // namespace tbt::tool
