# Plans: what they predict, and their bytes against those that ranks count.
add_executable(test_plan parallel/test_plan.c)
target_include_directories(test_plan PRIVATE .)
target_link_libraries(test_plan room_pipelines)
add_test(NAME parallel/plan COMMAND test_plan WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_executable(test_plan_bytes parallel/test_plan_bytes.c)
target_include_directories(test_plan_bytes PRIVATE .)
target_link_libraries(test_plan_bytes room_pipelines)
foreach(family flux hunyuandit sdxl pixart sd15 sd3)
  list(APPEND plan_models tests/cases/pipeline_${family}/model)
endforeach()
foreach(ranks 2 3 4)
  if(ranks EQUAL 4)
    list(SUBLIST plan_models 0 3 plan_models)  # every kind of layer is in these, and four ranks have many meshes
  endif()
  add_test(NAME parallel/plan-bytes-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_plan_bytes> models/emoji
           ${plan_models} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/plan-bytes-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
add_executable(test_plan_auto parallel/test_plan_auto.c)
target_include_directories(test_plan_auto PRIVATE .)
target_link_libraries(test_plan_auto room_pipelines)
foreach(ranks 1 2 4)
  add_test(NAME parallel/plan-auto-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_plan_auto> models/emoji
           tests/cases/pipeline_sdxl/model WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/plan-auto-${ranks} PROPERTIES TIMEOUT 900
                       ENVIRONMENT "${mpi_environment};XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/tests/cache-${ranks}")
endforeach()
# Which rank holds what.
add_executable(test_placement parallel/test_placement.c)
target_include_directories(test_placement PRIVATE .)
target_link_libraries(test_placement room_parallel)
add_test(NAME parallel/placement COMMAND test_placement)
# Pictures by device maps.
add_executable(test_map_pictures parallel/test_map_pictures.c)
target_include_directories(test_map_pictures PRIVATE .)
target_link_libraries(test_map_pictures room_pipelines)
foreach(ranks 1 2 3)
  add_test(NAME parallel/map_pictures-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_map_pictures> ${CMAKE_BINARY_DIR}/tests
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/map_pictures-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
