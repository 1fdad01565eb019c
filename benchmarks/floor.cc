// What the machine can do without us, for the same sizes: a bare ping-pong and a bare stream through shared memory
// between two pinned processes (the floor of any transport there), TCP over loopback, and memcpy on one core.
//
//   floor CPU_A CPU_B
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>

#include "measure.h"

namespace tbt::bench {
namespace {

constexpr size_t kLatencySizes[] = {8, 64, 4096};
constexpr size_t kBandwidthSizes[] = {4096, 65536, 1 << 20};
constexpr size_t kSlotBytes = 8192;

// One direction of the shared-memory ping-pong: the message, whose last eight bytes are its number.
struct alignas(4096) Mailbox {
  std::byte bytes[kSlotBytes];

  std::atomic<uint64_t>& number(size_t size) {
    return *reinterpret_cast<std::atomic<uint64_t>*>(bytes + size - sizeof(uint64_t));
  }
  void put(const std::byte* message, size_t size, uint64_t n) {
    if (size > sizeof n) std::memcpy(bytes, message, size - sizeof n);
    number(size).store(n, std::memory_order_release);
  }
  void wait_for(size_t size, uint64_t n) {
    while (number(size).load(std::memory_order_acquire) != n) relax();
  }
};

struct Shared {
  Mailbox ping;
  Mailbox pong;
};

Shared* map_shared() {
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED, "mmap");
  return new (memory) Shared{};
}

// Runs `work` in a child on `cpu`, which dies with its parent.
template <typename Work>
pid_t in_child(int cpu, Work work) {
  const pid_t child = fork();
  require(child >= 0, "fork");
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pin_to(cpu);
  work();
  _exit(0);
}

void end_child(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

double shared_memory_latency(size_t size, int cpu_b) {
  Shared* shared = map_shared();
  static std::byte message[kSlotBytes];
  const pid_t child = in_child(cpu_b, [&] {
    for (uint64_t n = 1;; ++n) {
      shared->ping.wait_for(size, n);
      shared->pong.put(message, size, n);
    }
  });
  uint64_t n = 0;
  const auto rounds = [&](size_t count) {
    const double start = now_s();
    for (size_t i = 0; i < count; ++i) {
      shared->ping.put(message, size, ++n);
      shared->pong.wait_for(size, n);
    }
    return now_s() - start;
  };
  const double round_trip = seconds_per_count(rounds, 100, 1'000'000, 0.02, 11);
  end_child(child);
  munmap(shared, sizeof *shared);
  return round_trip / 2;
}

// A stream through shared memory in pieces of 4 KiB: each is copied in by one process and out by the other, and
// nothing else is done with it.
struct Pipe {
  static constexpr uint64_t kPieces = 128;
  static constexpr size_t kPieceBytes = 4096;

  alignas(64) std::atomic<uint64_t> written{0};
  alignas(64) std::atomic<uint64_t> taken{0};
  alignas(4096) std::byte pieces[kPieces][kPieceBytes];

  void put(const std::byte* message, size_t size) {
    for (size_t at = 0; at < size; at += kPieceBytes) {
      const uint64_t n = written.load(std::memory_order_relaxed);
      while (n - taken.load(std::memory_order_acquire) == kPieces) relax();
      std::memcpy(pieces[n % kPieces], message + at, kPieceBytes);
      written.store(n + 1, std::memory_order_release);
    }
  }
  void take(std::byte* message, size_t size) {
    for (size_t at = 0; at < size; at += kPieceBytes) {
      const uint64_t n = taken.load(std::memory_order_relaxed);
      while (written.load(std::memory_order_acquire) == n) relax();
      std::memcpy(message + at, pieces[n % kPieces], kPieceBytes);
      taken.store(n + 1, std::memory_order_release);
    }
  }
};

// Bytes per second; `size` is a multiple of a piece.
double shared_memory_bandwidth(size_t size, int cpu_b) {
  void* memory = mmap(nullptr, sizeof(Pipe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED, "mmap");
  Pipe* pipe = new (memory) Pipe{};
  const auto message = std::make_unique<std::byte[]>(size);
  std::memset(message.get(), 1, size);
  const pid_t child = in_child(cpu_b, [&] {
    for (;;) pipe->take(message.get(), size);
  });
  const auto messages = [&](size_t count) {
    const double start = now_s();
    for (size_t i = 0; i < count; ++i) pipe->put(message.get(), size);
    while (pipe->taken.load(std::memory_order_acquire) != pipe->written.load(std::memory_order_relaxed)) relax();
    return now_s() - start;
  };
  const double each = seconds_per_count(messages, 20, 1'000'000, 0.1, 7);
  end_child(child);
  munmap(memory, sizeof(Pipe));
  return static_cast<double>(size) / each;
}

// A connected pair of TCP sockets over 127.0.0.1.
struct TcpPair {
  int a = -1;
  int b = -1;
};

TcpPair connect_tcp() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  require(listener >= 0 && bind(listener, generic, bytes) == 0 && listen(listener, 1) == 0 &&
              getsockname(listener, generic, &bytes) == 0,
          "listen");
  TcpPair pair;
  pair.a = socket(AF_INET, SOCK_STREAM, 0);
  require(pair.a >= 0 && connect(pair.a, generic, bytes) == 0, "connect");
  pair.b = accept(listener, nullptr, nullptr);
  require(pair.b >= 0, "accept");
  close(listener);
  const int on = 1;
  for (const int fd : {pair.a, pair.b}) {
    require(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
  }
  return pair;
}

void send_all(int fd, const std::byte* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = send(fd, bytes + done, size - done, MSG_NOSIGNAL);
    require(n > 0, "send");
    done += static_cast<size_t>(n);
  }
}

bool receive_all(int fd, std::byte* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = recv(fd, bytes + done, size - done, 0);
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

double tcp_latency(size_t size, int cpu_b) {
  const TcpPair tcp = connect_tcp();
  const auto buffer = std::make_unique<std::byte[]>(size);
  const pid_t child = in_child(cpu_b, [&] {
    close(tcp.a);
    while (receive_all(tcp.b, buffer.get(), size)) send_all(tcp.b, buffer.get(), size);
  });
  close(tcp.b);
  const auto rounds = [&](size_t count) {
    const double start = now_s();
    for (size_t i = 0; i < count; ++i) {
      send_all(tcp.a, buffer.get(), size);
      require(receive_all(tcp.a, buffer.get(), size), "recv");
    }
    return now_s() - start;
  };
  const double round_trip = seconds_per_count(rounds, 100, 100'000, 0.05, 11);
  close(tcp.a);
  end_child(child);
  return round_trip / 2;
}

// Bytes per second in one direction, sent in pieces of `size`; an answer of one byte ends each repetition.
double tcp_bandwidth(size_t size, int cpu_b) {
  const TcpPair tcp = connect_tcp();
  const auto buffer = std::make_unique<std::byte[]>(size);
  const pid_t child = in_child(cpu_b, [&] {
    close(tcp.a);
    uint64_t count = 0;
    while (receive_all(tcp.b, reinterpret_cast<std::byte*>(&count), sizeof count)) {
      for (uint64_t i = 0; i < count; ++i) {
        if (!receive_all(tcp.b, buffer.get(), size)) return;
      }
      send_all(tcp.b, buffer.get(), 1);
    }
  });
  close(tcp.b);
  const auto messages = [&](size_t count) {
    const double start = now_s();
    const uint64_t announced = count;
    send_all(tcp.a, reinterpret_cast<const std::byte*>(&announced), sizeof announced);
    for (size_t i = 0; i < count; ++i) send_all(tcp.a, buffer.get(), size);
    require(receive_all(tcp.a, buffer.get(), 1), "recv");
    return now_s() - start;
  };
  const double each = seconds_per_count(messages, 20, 1'000'000, 0.1, 7);
  close(tcp.a);
  end_child(child);
  return static_cast<double>(size) / each;
}

double memcpy_bandwidth(size_t size) {
  const auto from = std::make_unique<std::byte[]>(size);
  const auto to = std::make_unique<std::byte[]>(size);
  std::memset(from.get(), 1, size);
  std::memset(to.get(), 2, size);
  const auto copies = [&](size_t count) {
    const double start = now_s();
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(to.get(), from.get(), size);
      asm volatile("" : : "r"(to.get()) : "memory");  // each copy is made
    }
    return now_s() - start;
  };
  return static_cast<double>(size) / seconds_per_count(copies, 10, 10'000'000, 0.02, 11);
}

}  // namespace
}  // namespace tbt::bench

int main(int argc, char** argv) {
  using namespace tbt::bench;
  if (argc != 3) {
    std::fprintf(stderr, "usage: floor CPU_A CPU_B\n");
    return 2;
  }
  const int cpu_b = std::atoi(argv[2]);
  pin_to(std::atoi(argv[1]));
  for (const size_t size : kLatencySizes) report("floor_latency", size, shared_memory_latency(size, cpu_b) * 1e6);
  for (const size_t size : kLatencySizes) report("tcp_latency", size, tcp_latency(size, cpu_b) * 1e6);
  for (const size_t size : kBandwidthSizes)
    report("floor_bandwidth", size, shared_memory_bandwidth(size, cpu_b) / 1e9);
  for (const size_t size : kBandwidthSizes) report("tcp_bandwidth", size, tcp_bandwidth(size, cpu_b) / 1e9);
  for (const size_t size : kBandwidthSizes) report("memcpy_bandwidth", size, memcpy_bandwidth(size) / 1e9);
  return 0;
}
