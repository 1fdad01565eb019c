// Latency, bandwidth and message rate of RC verbs between two processes; plain <infiniband/verbs.h>.
//
//   verbs_bench server PORT CPU [DEVICE]
//   verbs_bench client HOST PORT CPU [DEVICE]                       everything, one JSON line per figure
//   verbs_bench client HOST PORT CPU [DEVICE] --messages KIND N     N messages of 64 bytes, for counting instructions
//
// The client orders rounds over TCP (an Order); both do their part; the client takes the time. Data are
// checked: each message carries its number in its last byte, and the last one must have arrived.
#include <cstring>
#include <string_view>

#include "measure.h"
#include "verbs_endpoint.h"

namespace tbt::bench {
namespace {

enum class Kind : uint32_t { kSendLatency, kWriteLatency, kWriteLatencyCq, kWrite, kRead, kSend };

struct Order {
  Kind kind;
  uint32_t count;
  uint64_t bytes;
};

constexpr size_t kLatencySizes[] = {8, 64, 4096};
constexpr size_t kBandwidthSizes[] = {4096, 65536, 1 << 20};
constexpr uint32_t kWarmUp = 20;       // rounds of a latency order that are not timed
constexpr uint32_t kSignalEvery = 16;
constexpr uint32_t kWindow = 128;      // messages under way in bandwidth orders

// Keeps the send queue from filling while only every kSignalEvery-th message is signaled.
class SendWindow {
 public:
  SendWindow(Endpoint& endpoint, uint32_t most) : endpoint_(endpoint), most_(most) {}
  void post(ibv_wr_opcode opcode, size_t bytes, bool last) {
    while (posted_ - done_ >= most_) take();
    ++posted_;
    endpoint_.post(opcode, bytes, last || posted_ % kSignalEvery == 0);
  }
  void take() { done_ += kSignalEvery * static_cast<uint32_t>(endpoint_.poll_sends()); }
  // Every message up to the last, which was signaled, is complete. The last one counts for the rest.
  void finish() {
    const uint32_t signaled = (posted_ + kSignalEvery - 1) / kSignalEvery;
    while (done_ / kSignalEvery < signaled) take();
  }

 private:
  Endpoint& endpoint_;
  uint32_t most_;
  uint32_t posted_ = 0;
  uint32_t done_ = 0;
};

void stamp(std::byte* buffer, size_t bytes, uint32_t number) {
  buffer[bytes - 1] = static_cast<std::byte>(number);
}
bool stamped(const std::byte* buffer, size_t bytes, uint32_t number) {
  return *const_cast<const volatile std::byte*>(buffer + bytes - 1) == static_cast<std::byte>(number);
}

// A ping-pong of SENDs. Receives are posted before the other end is told to begin. The one buffer may be changed
// once the other end's answer shows that its last message has arrived, and not before.
double send_latency(Endpoint& endpoint, const Order& order, bool first) {
  SendWindow window(endpoint, kSendDepth / 2);
  double start = 0;
  const uint32_t rounds = order.count + kWarmUp;
  for (uint32_t round = 0; round < rounds; ++round) {
    if (round == kWarmUp) start = now_s();
    const bool last = round + 1 == rounds;
    const auto send = [&] {
      stamp(endpoint.out(), order.bytes, round);
      window.post(IBV_WR_SEND, order.bytes, last);
    };
    if (first) send();
    while (endpoint.poll_recvs() == 0) relax();
    if (!stamped(endpoint.in(), order.bytes, round)) fail("SEND carried wrong data");
    if (round + 64 < rounds) endpoint.post_recv(order.bytes);
    if (!first) send();
  }
  const double seconds = now_s() - start;
  window.finish();
  return seconds;
}

// A ping-pong of WRITEs: the receiver watches the last byte of its buffer, as perftest does, and looks at its
// completion queue meanwhile only if `poll_cq`.
double write_latency(Endpoint& endpoint, const Order& order, bool first, bool poll_cq) {
  SendWindow window(endpoint, kSendDepth / 2);
  double start = 0;
  const uint32_t rounds = order.count + kWarmUp;
  for (uint32_t round = 0; round < rounds; ++round) {
    if (round == kWarmUp) start = now_s();
    const bool last = round + 1 == rounds;
    const uint32_t number = round + 1;
    const auto send = [&] {
      stamp(endpoint.out(), order.bytes, number);
      window.post(IBV_WR_RDMA_WRITE, order.bytes, last);
    };
    if (first) send();
    while (!stamped(endpoint.in(), order.bytes, number)) {
      if (poll_cq) {
        window.take();
      } else {
        relax();
      }
    }
    if (!first) send();
  }
  const double seconds = now_s() - start;
  window.finish();
  return seconds;
}

double stream(Endpoint& endpoint, const Order& order, ibv_wr_opcode opcode) {
  const uint32_t most = opcode == IBV_WR_RDMA_READ ? std::max(endpoint.reads_max(), kSignalEvery) : kWindow;
  SendWindow window(endpoint, most);
  stamp(endpoint.out(), order.bytes, order.count);
  const double start = now_s();
  for (uint32_t i = 0; i < order.count; ++i) window.post(opcode, order.bytes, i + 1 == order.count);
  window.finish();
  return now_s() - start;
}

void take_stream(Endpoint& endpoint, const Order& order) {
  uint32_t posted = std::min(order.count, kRecvDepth);
  for (uint32_t taken = 0; taken < order.count;) {
    const auto count = static_cast<uint32_t>(endpoint.poll_recvs());
    taken += count;
    for (uint32_t i = 0; i < count && posted < order.count; ++i, ++posted) endpoint.post_recv(order.bytes);
  }
}

bool latency_kind(Kind kind) {
  return kind == Kind::kSendLatency || kind == Kind::kWriteLatency || kind == Kind::kWriteLatencyCq;
}

void prepare(Endpoint& endpoint, const Order& order, bool server) {
  std::memset(endpoint.in(), 0, order.bytes);
  if (order.kind == Kind::kRead && server) stamp(endpoint.out(), order.bytes, order.count);
  uint32_t receives = 0;
  if (order.kind == Kind::kSendLatency) receives = std::min(order.count + kWarmUp, 64u);
  if (order.kind == Kind::kSend && server) receives = std::min(order.count, kRecvDepth);
  for (uint32_t i = 0; i < receives; ++i) endpoint.post_recv(order.bytes);
}

double latency(Endpoint& endpoint, const Order& order, bool first) {
  if (order.kind == Kind::kSendLatency) return send_latency(endpoint, order, first);
  return write_latency(endpoint, order, first, order.kind == Kind::kWriteLatencyCq);
}

void serve(Channel& channel, Endpoint& endpoint) {
  Order order{};
  while (channel.get(order)) {
    prepare(endpoint, order, true);
    channel.put(char{1});
    if (latency_kind(order.kind)) latency(endpoint, order, false);
    if (order.kind == Kind::kSend) take_stream(endpoint, order);
    char finished = 0;
    if (!channel.get(finished)) return;
    if (!latency_kind(order.kind) && order.kind != Kind::kRead) {
      if (!stamped(endpoint.in(), order.bytes, order.count)) fail("the last message is not here");
    }
    channel.put(char{1});
  }
}

// Carries out one order with the server and returns the seconds it took.
double carry_out(Channel& channel, Endpoint& endpoint, const Order& order) {
  prepare(endpoint, order, false);
  char answer = 0;
  channel.put(order);
  require(channel.get(answer), "server");
  double seconds = 0;
  switch (order.kind) {
    case Kind::kSendLatency:
    case Kind::kWriteLatency:
    case Kind::kWriteLatencyCq: seconds = latency(endpoint, order, true); break;
    case Kind::kWrite: seconds = stream(endpoint, order, IBV_WR_RDMA_WRITE); break;
    case Kind::kSend: seconds = stream(endpoint, order, IBV_WR_SEND); break;
    case Kind::kRead:
      seconds = stream(endpoint, order, IBV_WR_RDMA_READ);
      if (!stamped(endpoint.in(), order.bytes, order.count)) fail("READ fetched wrong data");
      break;
  }
  channel.put(char{1});
  require(channel.get(answer), "server");
  return seconds;
}

double seconds_each(Channel& channel, Endpoint& endpoint, Kind kind, size_t bytes) {
  const auto run = [&](size_t count) {
    return carry_out(channel, endpoint, Order{kind, static_cast<uint32_t>(count), bytes});
  };
  const size_t first = latency_kind(kind) ? 100 : 50;
  return seconds_per_count(run, first, 1'000'000, 0.1, 7);
}

void measure_all(Channel& channel, Endpoint& endpoint) {
  for (const size_t bytes : kLatencySizes) {
    const auto half_us = [&](Kind kind) { return seconds_each(channel, endpoint, kind, bytes) / 2 * 1e6; };
    report("send_latency", bytes, half_us(Kind::kSendLatency));
    report("write_latency", bytes, half_us(Kind::kWriteLatency));
    report("write_latency_cq", bytes, half_us(Kind::kWriteLatencyCq));
  }
  for (const size_t bytes : kBandwidthSizes) {
    const auto gigabytes = [&](Kind kind) {
      return static_cast<double>(bytes) / seconds_each(channel, endpoint, kind, bytes) / 1e9;
    };
    report("write_bandwidth", bytes, gigabytes(Kind::kWrite));
    report("read_bandwidth", bytes, gigabytes(Kind::kRead));
    report("send_bandwidth", bytes, gigabytes(Kind::kSend));
  }
  report("write_rate", 8, 1e-6 / seconds_each(channel, endpoint, Kind::kWrite, 8));
  report("send_rate", 8, 1e-6 / seconds_each(channel, endpoint, Kind::kSend, 8));
}

int usage() {
  std::fprintf(stderr,
               "usage: verbs_bench server PORT CPU [DEVICE]\n"
               "       verbs_bench client HOST PORT CPU [DEVICE] [--messages send|write N]\n");
  return 2;
}

int server(int argc, char** argv) {
  if (argc < 4) return usage();
  pin_to(std::atoi(argv[3]));
  Channel channel = Channel::listen(static_cast<uint16_t>(std::atoi(argv[2])));
  Endpoint endpoint(channel, argc > 4 ? argv[4] : "");
  serve(channel, endpoint);
  return 0;
}

int client(int argc, char** argv) {
  if (argc < 5) return usage();
  pin_to(std::atoi(argv[4]));
  Channel channel = Channel::connect(argv[2], static_cast<uint16_t>(std::atoi(argv[3])));
  const bool named = argc > 5 && argv[5][0] != '-';
  Endpoint endpoint(channel, named ? argv[5] : "");
  const int option = named ? 6 : 5;
  if (argc <= option) {
    measure_all(channel, endpoint);
    return 0;
  }
  if (argc != option + 3 || std::string_view(argv[option]) != "--messages") return usage();
  const Kind kind = std::string_view(argv[option + 1]) == "send" ? Kind::kSend : Kind::kWrite;
  carry_out(channel, endpoint, Order{kind, static_cast<uint32_t>(std::atoi(argv[option + 2])), 64});
  return 0;
}

}  // namespace
}  // namespace tbt::bench

int main(int argc, char** argv) {
  const std::string_view role = argc > 1 ? argv[1] : "";
  if (role == "server") return tbt::bench::server(argc, argv);
  if (role == "client") return tbt::bench::client(argc, argv);
  return tbt::bench::usage();
}
