// Many threads on one queue pair and one completion queue, and what one thread sees of memory that
// another one's calls let the transport write (C-119, C-120, C-122, C-138 of docs/conformance.md).
#include <atomic>
#include <barrier>
#include <mutex>
#include <set>

#include "live.h"

namespace tbt::provider_live {
namespace {

class Threads : public LiveTest {
 protected:
  int post_rdma(ibv_qp* qp, ibv_wr_opcode opcode, uint64_t wr_id, ibv_sge local, size_t remote,
                unsigned int flags = IBV_SEND_SIGNALED) {
    ibv_send_wr wr{};
    wr.wr_id = wr_id;
    wr.sg_list = &local;
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = flags;
    wr.wr.rdma = {.remote_addr = reinterpret_cast<uintptr_t>(memory) + remote, .rkey = mr->rkey};
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp, &wr, &bad);
  }
  static bool overdue(std::chrono::steady_clock::time_point start) {
    return std::chrono::steady_clock::now() - start > std::chrono::seconds(60);
  }
  const std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
};

TEST_F(Threads, C138_EightPostAndPollAndEachRequestCompletesOnce) {
  constexpr int kThreads = 8;
  constexpr uint64_t kEach = 10000;
  ibv_qp* a = make_qp({.depth = 64});
  ibv_qp* b = make_qp({.depth = 64});
  connect(a, b);
  std::mutex mutex;
  std::multiset<uint64_t> seen;  // both kinds; receives have the high bit
  std::atomic<int> failed{0};
  std::barrier together(kThreads);  // a thread alone is done before the next one runs
  std::vector<std::thread> threads;
  const auto poll = [&] {
    ibv_wc wcs[4];
    const int count = ibv_poll_cq(cq, 4, wcs);
    const std::lock_guard lock(mutex);
    for (int i = 0; i < count; ++i) {
      if (wcs[i].status != IBV_WC_SUCCESS) ++failed;
      seen.insert(wcs[i].wr_id);
    }
    return seen.size() == 2 * kThreads * kEach;
  };
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      together.arrive_and_wait();
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t id = t << 32 | i;
        while (post_recv(b, id | 1ull << 63, sge(4096 + 64 * t, 64)) != 0) {
          (void)poll();
          if (overdue(start)) return;
        }
        while (post_send(a, id, sge(64 * t, 32)) != 0) {
          (void)poll();
          if (overdue(start)) return;
        }
        (void)poll();
      }
      while (!poll() && !overdue(start)) std::this_thread::yield();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  ASSERT_EQ(seen.size(), 2 * kThreads * kEach);
  for (uint64_t t = 0; t < kThreads; ++t) {
    for (uint64_t i = 0; i < kEach; ++i) {
      ASSERT_EQ(seen.count(t << 32 | i), 1u);
      ASSERT_EQ(seen.count(1ull << 63 | t << 32 | i), 1u);
    }
  }
}

// A thread that makes no call watches the last word of the target, as MPI and NCCL do: when it
// changes, everything before it is there.
TEST_F(Threads, C120_WhoSeesTheLastWordOfAWriteSeesAllOfIt) {
  constexpr size_t kBytes = 3000;  // three packets
  constexpr uint64_t kRounds = 5000;
  constexpr size_t kTarget = 8192;
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({});
  connect(a, b);
  EXPECT_EQ(ibv_query_qp_data_in_order(a, IBV_WR_RDMA_WRITE, 0), 0) << "promised is nothing";
  std::atomic<uint64_t> seen{0};
  std::atomic<uint64_t> torn{0};
  std::thread watcher([&] {
    auto* last = reinterpret_cast<uint64_t*>(memory + kTarget + kBytes - 8);
    for (uint64_t round = 1; round <= kRounds; ++round) {
      while (std::atomic_ref(*last).load(std::memory_order_acquire) != round) {
        if (overdue(start)) return;
      }
      // Backwards: what was placed just before the last word comes first.
      for (size_t i = kBytes - 8; i-- > 0;) torn += memory[kTarget + i] != uint8_t(round) ? 1 : 0;
      seen.store(round, std::memory_order_release);
    }
  });
  for (uint64_t round = 1; round <= kRounds && !overdue(start); ++round) {
    std::memset(memory, static_cast<int>(round & 0xff), kBytes - 8);
    std::memcpy(memory + kBytes - 8, &round, 8);
    EXPECT_EQ(post_rdma(a, IBV_WR_RDMA_WRITE, round, sge(0, kBytes), kTarget), 0);
    EXPECT_EQ(completions(cq, 1).size(), 1u);
    while (seen.load(std::memory_order_acquire) != round && !overdue(start))
      std::this_thread::yield();
  }
  watcher.join();
  EXPECT_EQ(seen, kRounds);
  EXPECT_EQ(torn, 0u);
}

// A completion that one thread polls stands for all that earlier WRITEs of the queue pair brought,
// whichever thread's call placed it.
TEST_F(Threads, C119_AReceivesCompletionShowsTheWritesBeforeIt) {
  constexpr uint64_t kRounds = 3000;
  constexpr size_t kTarget = 8192;
  ibv_cq* received = ibv_create_cq(context, 64, nullptr, nullptr, 0);
  ASSERT_NE(received, nullptr);
  ibv_qp* a = make_qp({});
  ibv_qp* b = make_qp({.cq = received});
  connect(a, b);
  std::atomic<uint64_t> seen{0};
  uint64_t torn = 0;
  ASSERT_EQ(post_recv(b, 1, sge(32768, 64)), 0);
  std::thread receiver([&] {
    for (uint64_t round = 1; round <= kRounds; ++round) {
      ibv_wc wc;
      while (ibv_poll_cq(received, 1, &wc) != 1) {
        if (overdue(start)) return;
      }
      for (size_t i = 0; i < 2000; ++i) torn += memory[kTarget + i] != uint8_t(round) ? 1u : 0u;
      if (post_recv(b, round + 1, sge(32768, 64)) != 0) return;
      seen.store(round, std::memory_order_release);
    }
  });
  for (uint64_t round = 1; round <= kRounds && !overdue(start); ++round) {
    std::memset(memory, static_cast<int>(round & 0xff), 2000);
    EXPECT_EQ(post_rdma(a, IBV_WR_RDMA_WRITE, round, sge(0, 2000), kTarget, 0), 0);
    EXPECT_EQ(post_send(a, round, sge(0, 8)), 0);
    EXPECT_EQ(completions(cq, 1).size(), 1u);
    while (seen.load(std::memory_order_acquire) != round && !overdue(start))
      std::this_thread::yield();
  }
  receiver.join();
  EXPECT_EQ(seen, kRounds);
  EXPECT_EQ(torn, 0u);
  for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
  qps.clear();
  EXPECT_EQ(ibv_destroy_cq(received), 0);
}

// Three queue pairs and the processor count on one word.
TEST_F(Threads, C122_AtomicsCompeteWithoutLosingAny) {
  constexpr int kPairs = 3;
  constexpr size_t kBatch = 16;
  constexpr uint64_t kEach = 500 * kBatch;
  auto* word = reinterpret_cast<uint64_t*>(memory + 8192);
  struct Part {
    ibv_qp* qp;
    ibv_cq* cq;
  };
  std::vector<Part> parts;
  for (int i = 0; i < kPairs; ++i) {
    ibv_cq* own = ibv_create_cq(context, 64, nullptr, nullptr, 0);
    ibv_qp* a = make_qp({.cq = own});
    ibv_qp* b = make_qp({});
    connect(a, b);
    parts.push_back({a, own});
  }
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int t = 0; t < kPairs; ++t) {
    threads.emplace_back([&, t] {
      ibv_sge result = sge(64 * static_cast<size_t>(t), 8);
      std::vector<ibv_send_wr> batch(kBatch);
      for (size_t i = 0; i < kBatch; ++i) {
        batch[i] = {};
        batch[i].next = i + 1 < kBatch ? &batch[i + 1] : nullptr;
        batch[i].sg_list = &result;
        batch[i].num_sge = 1;
        batch[i].opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
        batch[i].send_flags = IBV_SEND_SIGNALED;
        batch[i].wr.atomic = {.remote_addr = reinterpret_cast<uintptr_t>(word),
                              .compare_add = 1,
                              .swap = 0,
                              .rkey = mr->rkey};
      }
      for (uint64_t i = 0; i < kEach; i += kBatch) {
        ibv_send_wr* bad = nullptr;
        if (ibv_post_send(parts[t].qp, batch.data(), &bad) != 0) ++failed;
        const auto done = completions(parts[t].cq, kBatch);
        if (done.size() != kBatch) ++failed;
        for (const ibv_wc& wc : done) failed += wc.status == IBV_WC_SUCCESS ? 0 : 1;
      }
    });
  }
  std::atomic<bool> stop{false};
  uint64_t own = 0;
  std::thread processor([&] {
    for (; !stop; ++own) std::atomic_ref(*word).fetch_add(1);
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  processor.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(std::atomic_ref(*word).load(), kPairs * kEach + own);
  for (ibv_qp* qp : qps) EXPECT_EQ(ibv_destroy_qp(qp), 0);
  qps.clear();
  for (const Part& part : parts) EXPECT_EQ(ibv_destroy_cq(part.cq), 0);
}

}  // namespace
}  // namespace tbt::provider_live
