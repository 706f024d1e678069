# Every exact hybrid of the denoisers against one rank: a covering set of world sizes with the other
# tests, all with `make test-hybrids`.
add_executable(test_hybrids parallel/test_hybrids.c)
target_include_directories(test_hybrids PRIVATE . models)
target_link_libraries(test_hybrids room_models)
file(GLOB hybrid_cases RELATIVE ${PROJECT_SOURCE_DIR} cases/sd3 cases/sd35 cases/flux_* cases/pixart_* cases/hunyuandit* cases/unet_*)
foreach(ranks 3 4)
  add_test(NAME parallel/hybrids-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_hybrids> ${hybrid_cases}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/hybrids-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
add_custom_target(run_hybrids DEPENDS test_hybrids)
foreach(ranks 1 2 3 4 5 6 7 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_hybrids> ${hybrid_cases})
endforeach()

# Whole pictures of every family, through the public API.
add_executable(test_parallel_generate parallel/test_generate.c)
target_include_directories(test_parallel_generate PRIVATE .)
target_link_libraries(test_parallel_generate room_pipelines)
set(hybrid_models models/emoji)
foreach(family sd15 sdxl sd3 flux pixart hunyuandit)
  list(APPEND hybrid_models tests/cases/pipeline_${family}/model)
endforeach()
# LoRA, a single file, and a denoiser in shards: each rank reads, and merges into, what it keeps.
set(sharded_model ${CMAKE_BINARY_DIR}/tests/pipeline_flux_sharded)
file(MAKE_DIRECTORY ${sharded_model})
file(GLOB parts ${PROJECT_SOURCE_DIR}/tests/cases/pipeline_flux/model/*)
foreach(part ${parts})
  get_filename_component(name ${part} NAME)
  if(name STREQUAL "transformer")
    set(part ${PROJECT_SOURCE_DIR}/tests/cases/flux_dev/model)
  endif()
  file(CREATE_LINK ${part} ${sharded_model}/${name} SYMBOLIC)
endforeach()
list(APPEND hybrid_models
     tests/cases/pipeline_sd15/model,lora=tests/cases/pipeline_sd15_lora/lora.safetensors:0.7
     tests/cases/pipeline_flux/model,lora=tests/cases/pipeline_flux_lora/lora.safetensors:0.7
     tests/cases/single_file/sd3.safetensors,config=tests/cases/pipeline_sd3/model
     ${sharded_model})
foreach(ranks 2 4)
  add_test(NAME parallel/generate-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_parallel_generate> ${hybrid_models}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/generate-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
foreach(ranks 1 2 3 4 5 6 7 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_parallel_generate> ${hybrid_models})
endforeach()
add_dependencies(run_hybrids test_parallel_generate)

# Small weights in every strategy.
add_executable(test_small_meshes parallel/test_small_meshes.c)
target_include_directories(test_small_meshes PRIVATE .)
target_link_libraries(test_small_meshes room_pipelines)
add_test(NAME parallel/small_meshes COMMAND ${MPIEXEC_EXECUTABLE} -n 2 $<TARGET_FILE:test_small_meshes> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/small_meshes PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
# The table of docs/parallel-table.md, from runs of its own.
add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                   COMMAND sh tests/parallel/table.sh ${CMAKE_BINARY_DIR}/tests docs/parallel-table.md)
# The command as a person starts it, and what happens when a rank fails.
add_test(NAME parallel/command COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/parallel/test_generate.sh $<TARGET_FILE:tessera>
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/command PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
